"""Sends the rows of a file to a service for scoring, and returns them with their scores."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from models.parts.incident_rule import Rule
from service.cli import score_result
from service.cli.progress import ShownProgress
from service.cli.scored_file import ScoredFile
from service.cli.sheet import Rows, Sheet
from service.cli.table_files import BadTable
from service.cli.targets import Target, Targets
from service.client import Refused
from service.client.answers import ScoreAnswer

_EXPLAINED = 1000  # rows in one request; the service explains at most 2,000
WHY = 3  # contributions to request for each row


def judged_file(
    targets: Targets, sheet: Sheet, write: ScoredFile, progress: ShownProgress, *, record: bool
) -> Iterator[tuple[score_result.ScoredRow, Rule]]:
    """Yield the rows of the file that `write` lacks, as `judged` does, and make them durable.

    The rows that it has are remembered as context. The caller adds each row that it gets.
    """
    passed = 0
    for chunk in sheet.rows(targets.first.columns, gaps=targets.first.gaps):
        passed += len(chunk.X)
        if passed <= write.done:  # an earlier command that was cut short wrote these rows
            targets.remember(chunk)
            continue
        for rows in chunk.parts(_EXPLAINED):
            yield from judged(targets, rows, record=record)
            progress.at(sheet.share(), passed)
        write.keep()


def judged(
    targets: Targets, rows: Rows, *, record: bool
) -> Iterator[tuple[score_result.ScoredRow, Rule]]:
    """Yield the rows in their order with their scores, each with its detector's incident rule."""
    by_place: dict[int, tuple[score_result.ScoredRow, Rule]] = {}
    for one, some, places in targets.split(rows):
        with located(some, targets.first.columns):
            answer = _answer(one, some, record=record)
        rule = score_result.rule_of(one.status, timed=rows.times is not None)
        for place, row in zip(
            places, score_result.rows(some, answer, one.config.get("score", "")), strict=True
        ):
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
