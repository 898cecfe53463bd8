"""Sends the rows of a file to a service for scoring, and returns them with their scores."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from models.parts.incident_rule import Rule
from service.cli import found
from service.cli.sheet import Rows
from service.cli.table_files import BadTable
from service.cli.targets import Target, Targets
from service.client import Refused
from service.client.answers import ScoreAnswer

WHY = 3  # contributions to request for each row


def judged(
    targets: Targets, rows: Rows, *, record: bool, timed: bool
) -> Iterator[tuple[found.Row, Rule]]:
    """Yield the rows in their order with their scores, each with its detector's incident rule."""
    by_place: dict[int, tuple[found.Row, Rule]] = {}
    for one, some, places in targets.split(rows):
        with located(some, targets.first.columns):
            answer = _answer(one, some, record=record)
        rule = found.rule_of(one.status, timed=timed)
        for place, row in zip(places, found.rows(some, answer), strict=True):
            by_place[place] = row, rule
    for place in range(len(rows.X)):
        yield by_place[place]


def _answer(one: Target, rows: Rows, *, record: bool) -> ScoreAnswer:
    """Return the scores of the rows. Rows that alarm have attributions too."""
    sent = rows.X, rows.times, rows.sources
    if one.config.get("context") is not None:
        return one.stream.score(*sent, record=record, explain=WHY)
    # Attributions cost many times as much as scores. So only the rows that alarm are explained.
    answer = one.stream.score(*sent, record=record)
    alarms = [place for place, alarm in enumerate(answer["is_anomaly"]) if alarm]
    if alarms:
        few = rows.some(alarms)
        why = one.stream.score(few.X, few.times, few.sources, record=False, explain=WHY)
        by_place = dict(zip(alarms, why.get("attributions") or (), strict=False))
        answer["attributions"] = [by_place.get(place, []) for place in range(len(rows.X))]
    return answer


@contextmanager
def located(rows: Rows, columns: list[tuple[str, str]] | None) -> Generator[None, None, None]:
    """Turn an error about a row of a request into one that names its place in the file."""
    try:
        yield
    except Refused as error:
        if error.row is None or error.row >= len(rows.places):
            raise
        column = ""
        if error.column is not None:
            name = columns[error.column][0] if columns else str(error.column + 1)
            column = f", column {name}"
        raise BadTable(f"{rows.where(error.row)}{column}: {error}") from None
