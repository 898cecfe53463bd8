"""Commands that send vectors: `score` and `learn`."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from service.cli import console
from service.cli.file_options import (
    Category,
    Detector,
    Drop,
    File,
    Files,
    GroupBy,
    Pivot,
    Source,
    Time,
    TimeFormat,
    Timezone,
    listed,
    options_of,
)
from service.cli.options import DEFAULT_URL, AsJson, Key, Url

_TOP = "Anomalies and incidents to show, the worst first; at most three rows of one incident."


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (score, learn):
        app.command()(command)


def score(
    file: File,
    detector: Detector = "default",
    time: Time = None,
    source: Source = None,
    group_by: GroupBy = None,
    drop: Drop = None,
    pivot: Pivot = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    top: Annotated[int, typer.Option(min=1, help=_TOP)] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write every row with its score to this file: .npy, .parquet, else CSV. If the "
            "command is interrupted, repeat it: it continues."
        ),
    ] = None,
    record: Annotated[
        bool,
        typer.Option("--record", help="Record the rows in events, incidents, drift and history."),
    ] = False,
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with 4 when there is an anomaly.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Score the rows of a file. With --json, write one object for each row."""
    from service.cli import score_result
    from service.cli.judged_rows import judged_file
    from service.cli.progress import ShownProgress
    from service.cli.recording import where_recorded
    from service.cli.scored_file import ScoredFile, scored_by
    from service.cli.sheet import Sheet
    from service.cli.targets import Targets, grouped, read_detector, tell

    options = grouped(options_of(time, source, drop, time_format, timezone, pivot), group_by)
    with Sheet(file, options) as sheet, console.client(url, key) as client:
        targets = Targets(client, detector, sheet, group_by, partial(read_detector, client))
        tell(sheet, targets.first.columns)
        seen = score_result.ScoreResult(top, options.clock().zone)
        by = scored_by(targets, url, repr(options))
        words = [name for name, kind in targets.first.columns or () if kind == "category"]
        with ScoredFile(out, sheet, by, words) as write, ShownProgress("scoring") as progress:
            for row, rule in judged_file(targets, sheet, write, progress, record=record):
                seen.add(row, rule)
                write.add(row)
                if as_json:
                    console.show_json(row.to_dict())
    if not as_json:
        seen.show()
        if record:
            console.complain(where_recorded(targets, client.url, seen.times))
    if fail_on_anomaly and seen.anomalies:
        raise typer.Exit(console.Exit.ANOMALY)


def learn(
    files: Files,
    detector: Detector = "default",
    time: Time = None,
    source: Source = None,
    group_by: GroupBy = None,
    drop: Drop = None,
    category: Category = None,
    pivot: Pivot = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    now: Annotated[bool, typer.Option("--now", help="Retrain at once, and wait for it.")] = False,
    wait: Annotated[float, typer.Option(min=1, help="Longest wait of --now, seconds.")] = 3600.0,
    again: Annotated[
        bool, typer.Option("--again", help="Send a file again that was sent before.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send the rows of files as normal. Repeating the command sends nothing twice.

    If a file has grown, only the new rows are sent. A missing detector is made with the columns
    of the first file and learns once the files are sent.
    """
    from service.cli.retraining import retrain
    from service.cli.sending import Sender, tell_counts, tell_outcomes, tell_results
    from service.cli.targets import grouped

    options = grouped(options_of(time, source, drop, time_format, timezone, pivot), group_by)
    options = replace(options, categories=listed(category))
    salt = uuid4().hex if again else ""
    with console.client(url, key) as client:
        with ExitStack() as waiting:
            sender = Sender(client, detector, group_by, options, url, salt, waiting)
            sender.send(files)
        reached = {name: client.detector(name) for name in sender.names}
        buffered = {name: status["buffered"] for name, status in reached.items()}
        # Nothing is left to retrain on if all rows were learned before. That is not an error.
        due = [name for name in reached if buffered[name]] if now else []
        outcomes = {name: retrain(client, name, wait, sent=True) for name in due}
        notes = {name: client.detector(name).get("notes", []) for name in outcomes}
    tell_results(reached, notes)
    if as_json:
        single = group_by is None
        summary = {
            "buffered": buffered[detector] if single else buffered,
            "retraining": outcomes.get(detector) if single else outcomes,
        }
        console.show_json({**sender.counts, **summary})
        return
    tell_counts(sender.counts, buffered)
    tell_outcomes(outcomes, named=group_by is not None)
    if now and not outcomes:
        typer.echo("retraining: nothing is buffered")
