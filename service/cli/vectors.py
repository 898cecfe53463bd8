"""Commands that send vectors: `score` and `learn`."""

import hashlib
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Key, Url

if TYPE_CHECKING:
    from service.cli.sheet import Rows, Sheet
    from service.cli.text_table import Options
    from service.client import Client
    from service.client.answers import DetectorStatus

WHY = 3  # contributions asked for of each row
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
    drop: Drop = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    top: Annotated[int, typer.Option(min=1, help="Anomalies to show, the worst first.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Write every row with its score to this CSV file.")
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
    from service.cli.progress import Share
    from service.cli.sheet import Sheet
    from service.client.stream import Stream

    options = options_of(time, source, drop, time_format, timezone)
    with (
        Sheet(file, options) as sheet,
        console.client(url, key) as client,
        found.writer(out, sheet.header) as write,
    ):
        status = status_of(client, detector)
        config = config_of(status)
        stream, columns = Stream(client, detector, config), sheet.matched(config)
        tell(sheet, columns)
        seen = found.Found(top, found.rule_of(status, timed=time is not None))
        with Share("scoring") as progress:
            chunks = sheet.rows(columns, gaps=config.get("missing") == "impute")
            for rows in (part for chunk in chunks for part in chunk.parts(_EXPLAINED)):
                with located(rows, columns):
                    answer = stream.score(
                        rows.X, rows.times, rows.sources, record=record, explain=WHY
                    )
                for row in found.rows(rows, answer):
                    seen.add(row)
                    write(row)
                    if as_json:
                        console.show_json(row.to_dict())
                progress.at(sheet.share(), seen.rows)
    if not as_json:
        seen.show()
    if fail_on_anomaly and seen.anomalies:
        raise typer.Exit(console.Exit.ANOMALY)


def learn(
    file: File,
    detector: Detector = "default",
    time: Time = None,
    source: Source = None,
    drop: Drop = None,
    time_format: TimeFormat = None,
    timezone: Timezone = "UTC",
    now: Annotated[bool, typer.Option("--now", help="Retrain at once, and wait for it.")] = False,
    wait: Annotated[float, typer.Option(min=1, help="Longest wait of --now, seconds.")] = 3600.0,
    again: Annotated[
        bool, typer.Option("--again", help="Send a file anew that was sent within 24 hours.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send the rows of a file as normal. Repeating the command sends nothing twice.

    A detector that is missing is made with the columns of the file; it learns at once.
    """
    from service.cli.progress import Share
    from service.cli.retraining import retrain
    from service.cli.sheet import Sheet
    from service.client.stream import Stream

    options = options_of(time, source, drop, time_format, timezone)
    counted: Counter[str] = Counter(accepted=0, quarantined=0, duplicate=0)
    salt = uuid4().hex if again else ""
    with Sheet(file, options) as sheet, console.client(url, key) as client:
        config, made = _ensure(client, detector, sheet, timezone)
        stream, columns = Stream(client, detector, config), sheet.matched(config)
        if not made:
            tell(sheet, columns)
        with Share("sending") as progress, _told_of(counted):
            for number, rows in enumerate(
                sheet.rows(columns, gaps=config.get("missing") == "impute")
            ):
                with located(rows, columns):
                    counted.update(
                        stream.learn(rows.X, rows.times, rows.sources, _key(salt, number, rows))
                    )
                progress.at(sheet.share(), counted["accepted"])
        status = client.detector(detector)
        buffered = status["buffered"]
        # What was sent before has been learned; asking for that again is no error.
        outcome = retrain(client, detector, wait) if now and buffered else None
    if as_json:
        console.show_json({**counted, "buffered": buffered, "retraining": outcome})
        return
    parts = ", ".join(f"{count} {name}" for name, count in counted.items())
    typer.echo(f"{detector}: {parts}; {buffered} buffered")
    if outcome is not None:
        typer.echo(f"retraining: {outcome['outcome']}, version {outcome['version']}")
    elif now:
        typer.echo("retraining: nothing is buffered")


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


def config_of(status: "DetectorStatus | None") -> dict[str, Any]:
    """Return the config of a status; nothing of it where that may not be read."""
    return dict(**status["config"]) if status else {}


def _ensure(
    client: "Client", detector: str, sheet: "Sheet", timezone: str
) -> tuple[dict[str, Any], bool]:
    """Return the detector's config, and whether it was made, with the columns of the file."""
    from service.cli.new_detector import config_for
    from service.client import Refused

    try:
        return config_of(client.detector(detector)), False
    except Refused as error:
        if error.status != 404:
            raise
    wanted, notes = config_for(sheet, timezone)
    config = dict(**client.create(detector, wanted))
    for note in (*sheet.said, *notes):
        console.complain(f"{sheet.file}: {note}")
    console.complain(f"created the detector {detector}")
    return config, True


def _key(salt: str, number: int, rows: "Rows") -> str:
    """Return what names this batch: its place in the file and what it holds.

    The number keeps two equal batches of one file apart.
    """
    digest = hashlib.sha256(f"{salt}/{number}/{rows.X.shape}/".encode())
    digest.update(rows.X.tobytes() if rows.X.dtype != object else repr(rows.X.tolist()).encode())
    if rows.times is not None:
        digest.update(rows.times.tobytes())
    digest.update("\0".join(rows.sources or ()).encode())
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


@contextmanager
def located(rows: "Rows", columns: list[tuple[str, str]] | None) -> Generator[None, None, None]:
    """Say where in the file a refused row stands."""
    from service.cli.table_files import BadTable
    from service.client import Refused

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
