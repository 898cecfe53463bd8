"""Sends the rows of a file to a service for scoring, and returns them with their scores."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from models.parts.incident_rule import Rule
from service.cli import console, score_result
from service.cli.blank_cells import BlankCells
from service.cli.progress import ShownProgress
from service.cli.recording import Pace
from service.cli.scored_file import ScoredFile
from service.cli.sheet import Rows, Sheet
from service.cli.still_cells import StillCells
from service.cli.table_files import BadTable
from service.cli.targets import Targets
from service.client import Refused

_AT_ONCE = 1000  # rows in one request
WHY = 3  # contributions to request for each row that alarms


def judged_file(
    targets: Targets, sheet: Sheet, write: ScoredFile, progress: ShownProgress, *, record: bool
) -> Iterator[tuple[score_result.ScoredRow, Rule]]:
    """Yield the rows of the file that `write` lacks, as `judged` does, and make them durable.

    The rows that `write` has are remembered as context. The caller adds each row that it gets. A
    person is told which columns stand still, and at the end which were blank.
    """
    passed, blank, still = 0, BlankCells(), StillCells(targets.first.columns)
    pace, before = (Pace() if record else None), 0.0  # the share of the file in earlier chunks
    for chunk in sheet.rows(targets.first.columns, gaps=targets.first.gaps):
        passed += len(chunk.X)
        share, sent = sheet.share(), 0
        blank.count(chunk)
        for note in still.new_stills(chunk):
            console.complain(note)
        if passed <= write.done:  # an earlier command that was cut short wrote these rows
            targets.remember(chunk)
            progress.skip(share, passed)
            before = share or 0.0
            continue
        for rows in chunk.parts(_AT_ONCE):
            yield from judged(targets, rows, pace)
            sent += len(rows.X)
            progress.at(share and before + (share - before) * sent / len(chunk.X), passed)
        before = share or 0.0
        write.keep()
    for note in blank.summary():
        console.complain(f"{sheet.file}: {note}")


def judged(
    targets: Targets, rows: Rows, pace: Pace | None
) -> Iterator[tuple[score_result.ScoredRow, Rule]]:
    """Yield the rows in their order with their scores, each with its detector's incident rule.

    The service records the rows if there is a pace for it.
    """
    by_place: dict[int, tuple[score_result.ScoredRow, Rule]] = {}
    for target, sent, places in targets.split(rows):
        with located(sent):
            answer = target.stream.score(
                sent.X, sent.times, sent.sources, record=pace is not None, why=WHY
            )
        if pace is not None:
            pace.wait(answer["is_anomaly"])
        rule = score_result.rule_of(target.status, timed=rows.times is not None)
        for place, row in zip(places, score_result.rows(sent, answer, target.config), strict=True):
            by_place[place] = row, rule
    for place in range(len(rows.X)):
        yield by_place[place]


@contextmanager
def located(rows: Rows) -> Generator[None, None, None]:
    """Turn an error about a row of a request into one that names its place in the file."""
    try:
        yield
    except Refused as error:
        if error.row is None or error.row >= len(rows.places):
            raise
        column = "" if error.column is None else f", column {rows.columns[error.column]}"
        raise BadTable(f"{rows.where(error.row)}{column}: {error}") from None
