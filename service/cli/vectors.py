"""Commands that send vectors: `score` and `learn`."""

import hashlib
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Key, Url

if TYPE_CHECKING:
    from service.cli.sent_before import SentBefore
    from service.cli.sheet import Rows, Sheet
    from service.cli.targets import Targets
    from service.cli.text_table import Options
    from service.client import Client
    from service.client.answers import DetectorStatus
    from service.client.configs import DetectorConfig

_EXPLAINED = 1000  # rows in one request: a service explains 2,000 at most

File = Annotated[
    Path,
    typer.Argument(
        help="CSV (compressed by gzip or not), .npy or .parquet; - reads standard input.",
        metavar="FILE",
    ),
]
Detector = Annotated[str, typer.Option("--detector", "-d", help="The detector.")]
Time = Annotated[str | None, typer.Option(help="Column that says when a row was.")]
Source = Annotated[str | None, typer.Option(help="Column that says whose row it is.")]
GroupBy = Annotated[
    str | None,
    typer.Option(help="Column whose values each have a detector of their own, DETECTOR:VALUE."),
]
Drop = Annotated[
    list[str] | None, typer.Option(help="Column to leave out; may be repeated, or a,b.")
]
TimeFormat = Annotated[
    str | None, typer.Option(help="How times are written, such as '%d.%m.%Y %H:%M'.")
]
Timezone = Annotated[str, typer.Option(help="Zone of times that name none: Europe/Berlin.")]


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
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    top: Annotated[int, typer.Option(min=1, help="Anomalies to show, the worst first.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write every row with its score to this file: .npy, .parquet, else CSV. A command "
            "that was cut goes on where it was when it is given again."
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Let events, incidents, drift and history know of it.")
    ] = False,
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with 4 when there is an anomaly.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Score the rows of a file. With --json, one object a row."""
    from service.cli import found
    from service.cli.judged_rows import judged
    from service.cli.progress import Share
    from service.cli.scored_file import ScoredFile, scored_by
    from service.cli.sheet import Sheet
    from service.cli.targets import Targets, grouped

    options = grouped(options_of(time, source, drop, time_format, timezone), group_by)
    with Sheet(file, options) as sheet, console.client(url, key) as client:

        def known(name: str) -> "tuple[DetectorStatus | None, DetectorConfig]":
            status = status_of(client, name)
            return status, config_of(status)

        targets = Targets(client, detector, sheet, group_by, known)
        columns, config = targets.first.columns, targets.first.config
        tell(sheet, columns)
        seen = found.Found(top)
        by = scored_by(targets, url, repr(options))
        with Share("scoring") as progress, ScoredFile(out, sheet, by) as write:
            passed = 0
            for chunk in sheet.rows(columns, gaps=config.get("missing") == "impute"):
                passed += len(chunk.X)
                if passed <= write.done:  # written by a command that was cut
                    for one, some, _ in targets.split(chunk):
                        one.stream.remember(some.X, some.times, some.sources)
                    continue
                for rows in chunk.parts(_EXPLAINED):
                    for row, rule in judged(targets, rows, record=record, timed=time is not None):
                        seen.add(row, rule)
                        write.add(row)
                        if as_json:
                            console.show_json(row.to_dict())
                    progress.at(sheet.share(), passed)
                write.keep()
    if not as_json:
        seen.show()
    if fail_on_anomaly and seen.anomalies:
        raise typer.Exit(console.Exit.ANOMALY)


def learn(
    file: File,
    detector: Detector = "default",
    time: Time = None,
    source: Source = None,
    group_by: GroupBy = None,
    drop: Drop = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    now: Annotated[bool, typer.Option("--now", help="Retrain at once, and wait for it.")] = False,
    wait: Annotated[float, typer.Option(min=1, help="Longest wait of --now, seconds.")] = 3600.0,
    again: Annotated[
        bool, typer.Option("--again", help="Send a file anew that was sent before.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send the rows of a file as normal. Repeating the command sends nothing twice.

    A file that grew is sent from where it ended. A detector that is missing is made with the
    columns of the file; it learns at once.
    """
    from service.cli.retraining import retrain_all
    from service.cli.sent_before import SentBefore
    from service.cli.sheet import Sheet
    from service.cli.targets import Targets, grouped

    options = grouped(options_of(time, source, drop, time_format, timezone), group_by)
    made: list[str] = []
    with Sheet(file, options) as sheet, console.client(url, key) as client:

        def known(name: str) -> "tuple[DetectorStatus, DetectorConfig]":
            status, new = _ensure(client, name, sheet, timezone, quiet=bool(made))
            made.extend([name] * new)
            return status, config_of(status)

        targets = Targets(client, detector, sheet, group_by, known)
        if not made:
            tell(sheet, targets.first.columns)
        since = targets.first.status.get("created_at", "") if targets.first.status else ""
        with SentBefore(url, detector, since, forget=again) as before:
            counted = _send(sheet, targets, before, uuid4().hex if again else "")
        names = [one.name for one in targets.all]
        buffered = {name: client.detector(name)["buffered"] for name in names}
        # What was sent before has been learned; asking for that again is no error.
        wanted = [name for name in names if buffered[name]] if now else []
        outcomes = retrain_all(client, wanted, wait)
    if as_json:
        single = group_by is None
        told = {
            "buffered": buffered[detector] if single else buffered,
            "retraining": outcomes.get(detector) if single else outcomes,
        }
        console.show_json({**counted, **told})
        return
    parts = ", ".join(f"{count} {name}" for name, count in counted.items())
    typer.echo(f"{', '.join(names)}: {parts}; {sum(buffered.values())} buffered")
    for name, outcome in outcomes.items():
        whose = "" if group_by is None else f" {name}"
        typer.echo(f"retraining{whose}: {outcome['outcome']}, version {outcome['version']}")
    if now and not outcomes:
        typer.echo("retraining: nothing is buffered")


def _send(sheet: "Sheet", targets: "Targets", before: "SentBefore", salt: str) -> Counter[str]:
    """Send the rows of a file that are not with the service yet; return how many became what."""
    from service.cli.judged_rows import located
    from service.cli.progress import Share

    counted: Counter[str] = Counter(accepted=0, quarantined=0, duplicate=0)
    columns, batches, whole = targets.first.columns, 0, 0
    gaps = targets.first.config.get("missing") == "impute"
    with Share("sending") as progress, _told_of(counted):
        for number, rows in enumerate(sheet.rows(columns, gaps=gaps)):
            old = before.rows(number, rows)
            batches, whole = batches + 1, whole + (old == len(rows.X))
            counted["duplicate"] += old
            for one, some, _ in targets.split(rows.some(range(old))):
                one.stream.remember(some.X, some.times, some.sources)
            for one, some, _ in targets.split(rows.rest(old)):
                with located(some, columns):
                    name = _key(salt, number, some)
                    counted.update(one.stream.learn(some.X, some.times, some.sources, name))
            before.add(number, rows)
            progress.at(sheet.share(), counted["accepted"])
    if known := counted["duplicate"]:
        console.complain(
            f"{sheet.file}: {known} rows were there already, {whole} of {batches} batches whole "
            "(--again sends them)"
        )
    return counted


def options_of(
    time: str | None, source: str | None, drop: list[str] | None, time_format: str | None, zone: str
) -> "Options":
    """Return what the options say of the columns of a file."""
    from service.cli.text_table import Options

    dropped = tuple(name for given in drop or () for name in given.split(",") if name)
    return Options(time, source, dropped, time_format, zone)


def tell(sheet: "Sheet", columns: list[tuple[str, str]] | None) -> None:
    """Say what is unusual of a file, and that columns go by position where they have no names."""
    for said in sheet.said:
        console.complain(f"{sheet.file}: {said}")
    if columns is None and sheet.names is not None:
        console.complain(
            f"{sheet.file}: the detector's columns have no names; the file's are taken in order"
        )


def status_of(client: "Client", detector: str) -> "DetectorStatus | None":
    """Return the detector's status; None for a key that may not read it."""
    from service.client import Refused

    try:
        return client.detector(detector)
    except Refused as error:
        if error.status != 403:
            raise
        console.complain("the key may not read the config: columns go by position")
        return None


def config_of(status: "DetectorStatus | None") -> "DetectorConfig":
    """Return the config of a status with the context in force; nothing where there is no status."""
    from service.client.configs import DetectorConfig
    from service.client.stream import config_in_force

    return config_in_force(status) if status else DetectorConfig()


def _ensure(
    client: "Client", detector: str, sheet: "Sheet", timezone: str, *, quiet: bool
) -> "tuple[DetectorStatus, bool]":
    """Return the detector's status, and whether it was made, with the columns of the file."""
    from service.cli.new_detector import config_for, template_config
    from service.client import Refused

    try:
        return client.detector(detector), False
    except Refused as error:
        if error.status != 404:
            raise
    wanted, notes = config_for(sheet, timezone)
    template, colon, _ = detector.partition(":")
    if colon:
        wanted = template_config(client, template, wanted)
    client.create(detector, wanted)
    for note in () if quiet else (*sheet.said, *notes):
        console.complain(f"{sheet.file}: {note}")
    console.complain(f"created the detector {detector}")
    return client.detector(detector), True


def _key(salt: str, number: int, rows: "Rows") -> str:
    """Return what names this batch: its place in the file and what it holds.

    The number keeps two equal batches of one file apart.
    """
    from service.cli.sent_before import digest_of

    digest = hashlib.sha256(f"{salt}/{number}/{digest_of(rows, len(rows.X))}".encode())
    return f"learn-{digest.hexdigest()[:40]}"


@contextmanager
def _told_of(counted: Counter[str]) -> Generator[None, None, None]:
    """Say of a file that is refused half-way what of it was sent before."""
    from service.cli.table_files import BadTable

    try:
        yield
    except BadTable as error:
        if sent := counted["accepted"] + counted["quarantined"]:
            raise BadTable(
                f"{error} ({sent} rows before it were sent and stay; repeating the command sends "
                "them once)"
            ) from None
        raise
