"""Commands that send vectors: `score` and `learn`."""

import hashlib
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
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
    from service.client.answers import DetectorStatus, Note
    from service.client.configs import DetectorConfig

_EXPLAINED = 1000  # rows in one request; the service explains at most 2,000

File = Annotated[
    Path,
    typer.Argument(
        help="CSV (compressed by gzip or not), .npy or .parquet; - reads standard input.",
        metavar="FILE",
    ),
]
Detector = Annotated[str, typer.Option("--detector", "-d", help="The detector.")]
Time = Annotated[str | None, typer.Option(help="Column with the time of each row.")]
Source = Annotated[str | None, typer.Option(help="Column with the source of each row.")]
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
                if passed <= write.done:  # an earlier command that was cut short wrote these rows
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
        bool, typer.Option("--again", help="Send a file again that was sent before.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send the rows of a file as normal. Repeating the command sends nothing twice.

    If the file has grown, only the new rows are sent. A missing detector is made with the columns
    of the file and learns at once.
    """
    from service.cli.new_detector import sources_note
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
        elif group_by is None and (apart := sources_note(sheet, source)):
            console.complain(f"{sheet.file}: {apart}")
        since = targets.first.status.get("created_at", "") if targets.first.status else ""
        with SentBefore(url, detector, since, forget=again) as before:
            counted = _send(sheet, targets, before, uuid4().hex if again else "")
        names = [one.name for one in targets.all]
        reached = {name: client.detector(name) for name in names}
        buffered = {name: status["buffered"] for name, status in reached.items()}
        # If all rows were sent and learned before, nothing is left to retrain on. That is no error.
        wanted = [name for name in names if buffered[name]] if now else []
        outcomes = retrain_all(client, wanted, wait)
        notes = {name: client.detector(name).get("notes", []) for name in outcomes}
    _tell_what_happened(reached, notes)
    if as_json:
        single = group_by is None
        summary = {
            "buffered": buffered[detector] if single else buffered,
            "retraining": outcomes.get(detector) if single else outcomes,
        }
        console.show_json({**counted, **summary})
        return
    parts = ", ".join(f"{count} {name}" for name, count in counted.items())
    typer.echo(f"{', '.join(names)}: {parts}; {sum(buffered.values())} buffered")
    for name, outcome in outcomes.items():
        whose = "" if group_by is None else f" {name}"
        typer.echo(f"retraining{whose}: {outcome['outcome']}, version {outcome['version']}")
    if now and not outcomes:
        typer.echo("retraining: nothing is buffered")


def _tell_what_happened(
    reached: "Mapping[str, DetectorStatus]", notes: "Mapping[str, Sequence[Note]]"
) -> None:
    """Write which rows wait for a person, and the notes of the versions that learned the file."""
    for name, status in reached.items():
        if waiting := status.get("waiting"):
            console.complain(f"{name}: {waiting}; `anamnesis quarantine list {name}` shows them")
    for name, some in notes.items():
        for note in some:
            console.complain(f"{name}: {note['sentence']}")


def _send(sheet: "Sheet", targets: "Targets", before: "SentBefore", salt: str) -> Counter[str]:
    """Send the rows that the service does not have yet. Return the counts of the answers."""
    from service.cli.judged_rows import located
    from service.cli.progress import Share

    counted: Counter[str] = Counter(accepted=0, quarantined=0, duplicate=0)
    columns, batches, whole = targets.first.columns, 0, 0
    gaps = targets.first.config.get("missing") == "impute"
    with Share("sending") as progress, _counts_in_errors(counted):
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
            f"{sheet.file}: {known} rows were sent before, {whole} of {batches} batches in full "
            "(--again sends them again)"
        )
    return counted


def options_of(
    time: str | None, source: str | None, drop: list[str] | None, time_format: str | None, zone: str
) -> "Options":
    """Return the options about the columns of a file."""
    from service.cli.text_table import Options

    dropped = tuple(name for given in drop or () for name in given.split(",") if name)
    return Options(time, source, dropped, time_format, zone)


def tell(sheet: "Sheet", columns: list[tuple[str, str]] | None) -> None:
    """Write what is unusual about a file, and whether its columns go by position."""
    for note in sheet.notes:
        console.complain(f"{sheet.file}: {note}")
    if columns is None and sheet.names is not None:
        console.complain(
            f"{sheet.file}: the detector's columns have no names, so the file's are used in order"
        )


def status_of(client: "Client", detector: str) -> "DetectorStatus | None":
    """Return the detector's status, None if the key may not read it."""
    from service.client import Refused

    try:
        return client.detector(detector)
    except Refused as error:
        if error.status != 403:
            raise
        console.complain("the key may not read the config: columns go by position")
        return None


def config_of(status: "DetectorStatus | None") -> "DetectorConfig":
    """Return the config with the context in force. It is empty if there is no status."""
    from service.client.configs import DetectorConfig
    from service.client.stream import config_in_force

    return config_in_force(status) if status else DetectorConfig()


def _ensure(
    client: "Client", detector: str, sheet: "Sheet", timezone: str, *, quiet: bool
) -> "tuple[DetectorStatus, bool]":
    """Return the detector's status. A missing detector is made with the columns of the file.

    The second value says whether it was made.
    """
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
    for note in () if quiet else (*sheet.notes, *notes):
        console.complain(f"{sheet.file}: {note}")
    console.complain(f"created the detector {detector}")
    return client.detector(detector), True


def _key(salt: str, number: int, rows: "Rows") -> str:
    """Return the idempotency key of a batch, a digest of its rows and its number in the file.

    With the number, two equal batches of one file have different keys.
    """
    from service.cli.sent_before import digest_of

    digest = hashlib.sha256(f"{salt}/{number}/{digest_of(rows, len(rows.X))}".encode())
    return f"learn-{digest.hexdigest()[:40]}"


@contextmanager
def _counts_in_errors(counted: Counter[str]) -> Generator[None, None, None]:
    """If a row of the file is refused, add to the error how many rows were sent before it."""
    from service.cli.table_files import BadTable

    try:
        yield
    except BadTable as error:
        if sent := counted["accepted"] + counted["quarantined"]:
            raise BadTable(
                f"{error} ({sent} rows before it were sent; repeating the command does not send "
                "them again)"
            ) from None
        raise
