"""The command `watch`: scores the rows of a growing file and prints its incidents."""

from typing import Annotated

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Key, Url
from service.cli.vectors import (
    Detector,
    Drop,
    File,
    Source,
    Time,
    TimeFormat,
    Timezone,
    config_of,
    options_of,
    status_of,
    tell,
)


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
    from service.cli import found
    from service.cli.judged_rows import WHY, located
    from service.cli.live import Live
    from service.cli.sheet import Sheet
    from service.client.stream import Stream

    options = options_of(time, source, drop, time_format, timezone)
    with Sheet(file, options, follow=True) as sheet, console.client(url, key) as client:
        status = status_of(client, detector)
        config = config_of(status)
        stream, columns = Stream(client, detector, config), sheet.matched(config)
        tell(sheet, columns)
        live = Live(found.rule_of(status, timed=time is not None))
        try:
            for rows in sheet.rows(columns, gaps=config.get("missing") == "impute"):
                if rows.places[0] <= sheet.lines_before and not from_start:
                    stream.remember(rows.X, rows.times, rows.sources)
                    continue
                with located(rows, columns):
                    answer = stream.score(rows.X, rows.times, rows.sources, explain=WHY)
                for row in found.rows(rows, answer):
                    if as_json:
                        console.show_json(row.to_dict())
                    else:
                        for line in live.add(row):
                            console.show(line)
        except KeyboardInterrupt:
            pass
    if not as_json:
        for line in live.end():
            console.show(line)
