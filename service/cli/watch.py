"""The command `watch`: scores the rows of a growing file and prints its incidents."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import console
from service.cli.file_options import (
    Detector,
    Drop,
    File,
    Source,
    Time,
    TimeFormat,
    Timezone,
    options_of,
)
from service.cli.options import DEFAULT_URL, AsJson, Key, Url

if TYPE_CHECKING:
    from service.cli.score_result import ScoredRow
    from service.cli.sheet import Sheet
    from service.cli.targets import Target


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(watch)


def watch(
    file: File,
    detector: Detector = "default",
    time: Time = None,
    source: Source = None,
    drop: Drop = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Score the rows that the file has already, too.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Score the rows of a file as it grows, and print incidents as they open and close.

    The file is CSV, or has one JSON object in each line; - reads standard input. Rows that the
    file has already are only context. Ctrl-C ends the command.
    """
    from service.cli.live import LiveIncidents
    from service.cli.score_result import rule_of
    from service.cli.sheet import Sheet
    from service.cli.targets import Targets, read_detector, tell

    options = options_of(time, source, drop, time_format, timezone)
    console.complain(f"{file}: watching; Ctrl-C ends")
    with Sheet(file, options, follow=True) as sheet, console.client(url, key) as client:
        target = Targets(client, detector, sheet, None, partial(read_detector, client)).first
        tell(sheet, target.columns)
        live = LiveIncidents(rule_of(target.status, timed=time is not None), options.clock().zone)
        with contextlib.suppress(KeyboardInterrupt):
            for row in _scored(target, sheet, from_start=from_start):
                if as_json:
                    console.show_json(row.to_dict())
                    continue
                for line in live.add(row):
                    console.show(line)
    if not as_json:
        for line in live.end():
            console.show(line)


def _scored(target: "Target", sheet: "Sheet", *, from_start: bool) -> "Iterator[ScoredRow]":
    """Yield the rows with their scores as they come. Earlier rows are only context by default."""
    from service.cli import score_result
    from service.cli.blank_cells import BlankCells
    from service.cli.judged_rows import WHY, located
    from service.cli.still_cells import StillCells

    blank, still = BlankCells(), StillCells(target.columns)
    for rows in sheet.rows(target.columns, gaps=target.gaps):
        for note in (*blank.new_blanks(rows), *still.new_stills(rows)):
            console.complain(note)
        if rows.places[0] <= sheet.lines_before and not from_start:
            target.stream.remember(rows.X, rows.times, rows.sources)
            continue
        with located(rows):
            answer = target.stream.score(rows.X, rows.times, rows.sources, why=WHY)
        yield from score_result.rows(rows, answer, target.config)
