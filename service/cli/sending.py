"""Sends the rows of a file as normal, and tells what became of them."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from models.config import MIN_VECTORS
from service.cli import console
from service.cli.judged_rows import located
from service.cli.new_detector import ensured, sources_note
from service.cli.progress import ShownProgress
from service.cli.score_result import LATE
from service.cli.sent_batches import SentBatches, digest_of
from service.cli.sheet import Rows, Sheet
from service.cli.table_files import BadTable
from service.cli.targets import Targets, tell, tell_categories
from service.cli.text_table import Options
from service.client.stream import Stream, config_in_force

if TYPE_CHECKING:
    from service.client import Client
    from service.client.answers import DetectorStatus, LastRetraining, Note
    from service.client.configs import DetectorConfig


@dataclass(slots=True)
class Sender:
    """Sends the rows of files to a detector, or to one for each value of the column `group_by`.

    A missing detector is made; it is retrained for its number of rows only after `waiting` closes.
    Batches with another `salt` are new to the service. `names` are the detectors that got rows,
    `counts` has the counts of the answers.
    """

    client: "Client"
    detector: str
    group_by: str | None
    options: Options
    url: str
    salt: str
    waiting: ExitStack
    made: list[str] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    counts: Counter[str] = field(
        default_factory=lambda: Counter(accepted=0, quarantined=0, duplicate=0)
    )
    _streams: dict[str, Stream] = field(default_factory=dict)
    _latest: float = -math.inf  # the newest time of all rows so far

    def send(self, files: Sequence[Path]) -> None:
        """Send the rows of the files that the service does not have yet, in this order."""
        with ShownProgress("sending") as progress, _counts_in_errors(self.counts):
            for number, file in enumerate(files):

                def shown(share: float | None, number: int = number) -> None:
                    whole = None if share is None else (number + share) / len(files)
                    progress.at(whole, self.counts["accepted"])

                with Sheet(file, self.options) as sheet:
                    self._send(sheet, shown)

    def _send(self, sheet: Sheet, progress: Callable[[float | None], None]) -> None:
        made_before = len(self.made)
        first = None if sheet.first is None else sheet.first.times
        if first is None or first.min() <= self._latest:
            self._streams = {}  # the rows of this file do not follow those of the files before
        find, streams = self._finder(sheet), self._streams
        targets = Targets(self.client, self.detector, sheet, self.group_by, find, streams)
        if len(self.made) == made_before:
            tell(sheet, targets.first.columns)
            tell_categories(sorted(sheet.categories), targets.first.columns)
        elif self.group_by is None and (advice := sources_note(sheet, self.options.source)):
            console.complain(f"{sheet.file}: {advice}")
        since = targets.first.status.get("created_at", "") if targets.first.status else ""
        with SentBatches(self.url, self.detector, since, forget=bool(self.salt)) as before:
            self._send_batches(sheet, targets, before, progress)
        self.names |= {target.name: None for target in targets.all}

    def _finder(self, sheet: Sheet) -> "Callable[[str], tuple[DetectorStatus, DetectorConfig]]":
        """Return a function that finds a detector by its name. It makes one that is missing."""

        def find(name: str) -> "tuple[DetectorStatus, DetectorConfig]":
            zone, quiet = self.options.timezone, bool(self.made)
            status, new = ensured(self.client, name, sheet, zone, self.waiting, quiet=quiet)
            self.made += [name] * new
            return status, config_in_force(status)

        return find

    def _send_batches(
        self,
        sheet: Sheet,
        targets: Targets,
        before: SentBatches,
        progress: Callable[[float | None], None],
    ) -> None:
        batches = sent_in_full = sent_before = blank = 0
        for number, rows in enumerate(sheet.rows(targets.first.columns, gaps=targets.first.gaps)):
            batches = number + 1
            old = before.rows(number, rows)
            sent_before += old
            sent_in_full += old == len(rows.X)
            self.counts["duplicate"] += old
            full = ~rows.mostly_blank
            blank += int((~full[old:]).sum())
            targets.remember(rows.at(np.flatnonzero(full[:old])))
            for target, new, _ in targets.split(rows.at(old + np.flatnonzero(full[old:]))):
                with located(new):
                    name = _key(self.salt, number, new)
                    self.counts.update(target.stream.learn(new.X, new.times, new.sources, name))
            before.add(number, rows)
            if rows.times is not None:
                self._latest = max(self._latest, float(rows.times.max()))
            progress(sheet.share())
        if blank:
            console.complain(
                f"{sheet.file}: {blank} rows have fewer than half of their values: not learned"
            )
        if sent_before:
            console.complain(
                f"{sheet.file}: {sent_before} rows were sent before, {sent_in_full} of {batches} "
                "batches in full (--again sends them again)"
            )


def _key(salt: str, number: int, rows: Rows) -> str:
    """Return the idempotency key of a batch, a digest of its rows and its number in the file.

    With the number, two equal batches of one file have different keys.
    """
    digest = hashlib.sha256(f"{salt}/{number}/{digest_of(rows, len(rows.X))}".encode())
    return f"learn-{digest.hexdigest()[:40]}"


@contextmanager
def _counts_in_errors(counts: Counter[str]) -> Generator[None, None, None]:
    """If a row of the file is refused, add to the error how many rows were sent before it."""
    try:
        yield
    except BadTable as error:
        if sent := counts["accepted"] + counts["quarantined"]:
            raise BadTable(
                f"{error} ({sent} rows before it were sent; repeating the command does not send "
                "them again)"
            ) from None
        raise


def tell_results(
    reached: "Mapping[str, DetectorStatus]", notes: "Mapping[str, Sequence[Note]]"
) -> None:
    """Write which rows wait, and for what, and the notes of the versions that learned the file."""
    for name, status in reached.items():
        if status["champion"] is None and 0 < status["buffered"] < MIN_VECTORS:
            console.complain(
                f"{name}: nothing is learned yet; a training needs {MIN_VECTORS} rows, and "
                f"{status['buffered']} are buffered"
            )
        if waiting := status.get("waiting"):
            console.complain(f"{name}: {waiting}; `anamnesis quarantine list {name}` shows them")
    for name, notes_of_detector in notes.items():
        for note in notes_of_detector:
            console.complain(f"{name}: {note['sentence']}")


def tell_counts(counts: Mapping[str, int], buffered: Mapping[str, int]) -> None:
    """Write what became of the rows, and how many vectors the detectors buffer now."""
    parts = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"{', '.join(buffered)}: {parts}; {sum(buffered.values())} buffered")
    if counts.get("late"):
        typer.echo(LATE)


def tell_outcomes(outcomes: "Mapping[str, LastRetraining]", *, named: bool) -> None:
    """Write how each retraining ended, with the detector's name if `named`."""
    for name, outcome in outcomes.items():
        whose = f" {name}" if named else ""
        typer.echo(f"retraining{whose}: {outcome['outcome']}, version {outcome['version']}")
        for reason in outcome["reasons"]:
            console.complain(f"{name}: {reason}")
        if labelled := outcome.get("labelled"):
            typer.echo(labelled)
        if outcome["outcome"] == "rejected":
            console.complain(
                f"{name}: the gate rejected version {outcome['version']}, and its rows wait for a "
                f"person. If all of them are normal, `anamnesis promote {name} "
                f"{outcome['version']}` takes the version. Otherwise discard the rows: "
                f"`anamnesis quarantine list {name}`"
            )
