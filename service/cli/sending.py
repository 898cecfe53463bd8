"""Sends the rows of a file as normal, and tells what became of them."""

import hashlib
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from service.cli import console
from service.cli.judged_rows import located
from service.cli.progress import ShownProgress
from service.cli.sent_batches import SentBatches, digest_of
from service.cli.sheet import Rows, Sheet
from service.cli.table_files import BadTable
from service.cli.targets import Targets

if TYPE_CHECKING:
    from service.client.answers import DetectorStatus, LastRetraining, Note


def send(sheet: Sheet, targets: Targets, before: SentBatches, salt: str) -> Counter[str]:
    """Send the rows that the service does not have yet. Return the counts of the answers.

    Batches with another `salt` are new to the service.
    """
    counted: Counter[str] = Counter(accepted=0, quarantined=0, duplicate=0)
    columns, batches, whole = targets.first.columns, 0, 0
    with ShownProgress("sending") as progress, _counts_in_errors(counted):
        for number, rows in enumerate(sheet.rows(columns, gaps=targets.first.gaps)):
            old = before.rows(number, rows)
            batches, whole = batches + 1, whole + (old == len(rows.X))
            counted["duplicate"] += old
            targets.remember(rows.some(range(old)))
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


def _key(salt: str, number: int, rows: Rows) -> str:
    """Return the idempotency key of a batch, a digest of its rows and its number in the file.

    With the number, two equal batches of one file have different keys.
    """
    digest = hashlib.sha256(f"{salt}/{number}/{digest_of(rows, len(rows.X))}".encode())
    return f"learn-{digest.hexdigest()[:40]}"


@contextmanager
def _counts_in_errors(counted: Counter[str]) -> Generator[None, None, None]:
    """If a row of the file is refused, add to the error how many rows were sent before it."""
    try:
        yield
    except BadTable as error:
        if sent := counted["accepted"] + counted["quarantined"]:
            raise BadTable(
                f"{error} ({sent} rows before it were sent; repeating the command does not send "
                "them again)"
            ) from None
        raise


def tell_results(
    reached: "Mapping[str, DetectorStatus]", notes: "Mapping[str, Sequence[Note]]"
) -> None:
    """Write which rows wait for a person, and the notes of the versions that learned the file."""
    for name, status in reached.items():
        if waiting := status.get("waiting"):
            console.complain(f"{name}: {waiting}; `anamnesis quarantine list {name}` shows them")
    for name, some in notes.items():
        for note in some:
            console.complain(f"{name}: {note['sentence']}")


def tell_outcomes(outcomes: "Mapping[str, LastRetraining]", *, named: bool) -> None:
    """Write how each retraining ended, with the detector's name if `named`."""
    for name, outcome in outcomes.items():
        whose = f" {name}" if named else ""
        typer.echo(f"retraining{whose}: {outcome['outcome']}, version {outcome['version']}")
        for reason in outcome["reasons"]:
            console.complain(f"{name}: {reason}")
        if outcome["outcome"] == "rejected":
            console.complain(
                f"{name}: the gate rejected version {outcome['version']}, and its rows wait for a "
                f"person. If all of them are normal, `anamnesis promote {name} "
                f"{outcome['version']}` takes the version. Otherwise discard the rows: "
                f"`anamnesis quarantine list {name}`"
            )
