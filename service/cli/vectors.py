"""Commands that send vectors: `score` and `learn`."""

import hashlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from service.cli import console, table_files
from service.cli.options import DEFAULT_URL, AsJson, Key, Url
from service.client.client import Client, Refused

_SHOWN = 20  # anomalies in the table for people; `--json` has every row

File = Annotated[
    Path, typer.Argument(help="CSV, .npy or .parquet; - reads standard input.", metavar="FILE")
]
Detector = Annotated[str, typer.Option("--detector", "-d", help="The detector.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (score, learn):
        app.command()(command)


def score(
    file: File,
    detector: Detector = "default",
    fail_on_anomaly: Annotated[
        bool, typer.Option("--fail-on-anomaly", help="Exit with 4 when there is an anomaly.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Score the vectors of a file. With --json, one object a vector."""
    counted: Counter[str] = Counter()
    anomalies: list[dict[str, Any]] = []
    with console.client(url, key) as client:
        for batch in _progressing(table_files.read(file), "scoring"):
            with _located(batch):
                answer = client.score(detector, batch.vectors)
            rows = list(_rows(batch, answer))
            found = [row for row in rows if row["is_anomaly"]]
            counted.update(vectors=len(rows), anomalies=len(found))
            anomalies.extend(found[: _SHOWN - len(anomalies)])
            if as_json:
                for row in rows:
                    console.show_json(row)
    if not as_json:
        _show_scores(counted, anomalies)
    if fail_on_anomaly and counted["anomalies"]:
        raise typer.Exit(console.Exit.ANOMALY)


def _rows(batch: table_files.Batch, answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    columns = ("scores", "p_values", "severities", "is_anomaly")
    for place, *values in zip(batch.places, *(answer[name] for name in columns), strict=True):
        named = zip(("score", "p_value", "severity", "is_anomaly"), values, strict=True)
        yield {batch.unit: place, "version": answer["version"], **dict(named)}


def _show_scores(counted: Counter[str], anomalies: list[dict[str, Any]]) -> None:
    if anomalies:
        console.show_table(tuple(anomalies[0])[:-1], (_cells(row) for row in anomalies))
    more = counted["anomalies"] - len(anomalies)
    typer.echo(
        f"{counted['anomalies']} of {counted['vectors']} vectors are anomalies"
        + (f" ({more} more than shown)" if more else "")
    )


def _cells(row: dict[str, Any]) -> list[str]:
    *cells, _ = row.values()
    return [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]


def learn(
    file: File,
    detector: Detector = "default",
    now: Annotated[bool, typer.Option("--now", help="Retrain at once, and wait for it.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Send a file anew that was sent within 24 hours.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send the vectors of a file as normal. Repeating the command sends nothing twice."""
    counted: Counter[str] = Counter(accepted=0, quarantined=0, duplicate=0)
    salt = uuid4().hex if again else ""
    with console.client(url, key) as client:
        _ensure(client, detector)
        for number, batch in enumerate(_progressing(table_files.read(file), "sending")):
            with _located(batch):
                answer = client.learn(detector, batch.vectors, _key(salt, number, batch))
            # A repeated batch is answered as it was the first time; nothing was accepted anew.
            news = ("duplicate",) if answer["duplicate"] else ("accepted", "quarantined")
            counted.update({name: answer[name] for name in news})
        buffered = client.detector(detector)["buffered"]
        # What was sent before has been learned; asking for that again is no error.
        outcome = _retrain(client, detector) if now and buffered else None
    if as_json:
        console.show_json({**counted, "buffered": buffered, "retraining": outcome})
        return
    parts = ", ".join(f"{count} {name}" for name, count in counted.items())
    typer.echo(f"{detector}: {parts}; {buffered} buffered")
    if outcome is not None:
        typer.echo(f"retraining: {outcome['outcome']}, version {outcome['version']}")
    elif now:
        typer.echo("retraining: nothing is buffered")


def _ensure(client: Client, detector: str) -> None:
    """Create the detector with its defaults where it is missing."""
    try:
        client.detector(detector)
    except Refused as error:
        if error.status != 404:
            raise
        client.create(detector, {})
        console.complain(f"created the detector {detector}")


def _key(salt: str, number: int, batch: table_files.Batch) -> str:
    """Return what names this batch: its place in the file and what it holds.

    The number keeps two equal batches of one file apart.
    """
    digest = hashlib.sha256(f"{salt}/{number}/{batch.vectors.shape}/".encode())
    digest.update(batch.vectors.tobytes())
    return f"learn-{digest.hexdigest()[:40]}"


def _retrain(client: Client, detector: str) -> dict[str, Any]:
    while True:
        with console.progress() as bar:
            bar.add_task(f"retraining {detector}", total=None)
            outcome = client.retrain(detector)
        if outcome is not None:
            return outcome


@contextmanager
def _located(batch: table_files.Batch) -> Generator[None, None, None]:
    """Say where in the file a refused row stands."""
    try:
        yield
    except Refused as error:
        if error.row is None:
            raise
        column = "" if error.column is None else f", column {error.column + 1}"
        raise table_files.BadTable(f"{batch.where(error.row)}{column}: {error}") from None


def _progressing(batches: Iterator[table_files.Batch], doing: str) -> Iterator[table_files.Batch]:
    """Yield the batches while a bar on stderr counts their vectors."""
    with console.progress() as bar:
        task = bar.add_task(doing, total=None)
        for batch in batches:
            yield batch
            bar.advance(task, len(batch.vectors))
