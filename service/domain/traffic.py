"""The report of one API process about the rows of a detector that it scored."""

from collections.abc import Sequence

import msgspec
import numpy as np

from service.domain import history
from service.domain.history import Bucket
from service.domain.incident_fold import Block

FORMAT = 1


class BucketCounts(msgspec.Struct, frozen=True, array_like=True):
    """The counts of the rows in one bucket of `step` seconds; its number since 1970 is `place`.

    `bins` are the nonempty bins of the histogram, each with its count.
    """

    step: int
    place: int
    rows: int
    alarms: int
    severity_max: float
    bins: tuple[tuple[int, int], ...] = ()
    regimes: tuple[int, ...] = ()

    @classmethod
    def of(cls, step: int, place: int, bucket: Bucket) -> "BucketCounts":
        """Return the counts of `bucket`."""
        filled = np.flatnonzero(bucket.severities)
        regimes = bucket.regimes.tolist() if bucket.regimes.any() else []
        return cls(
            step,
            place,
            bucket.rows,
            bucket.alarms,
            bucket.severity_max,
            tuple(zip(filled.tolist(), bucket.severities[filled].tolist(), strict=True)),
            tuple(regimes),
        )

    def bucket(self, generation: int) -> Bucket:
        """Return the counts as a bucket of the history."""
        bucket = Bucket(self.rows, self.alarms, self.severity_max, generation)
        for place, count in self.bins:
            bucket.severities[place] = count
        bucket.regimes[: len(self.regimes)] = self.regimes
        return bucket


class Report(msgspec.Struct, frozen=True):
    """One report: the counts of rows, and blocks of rows by source.

    The kept rows have no event ids yet: the store assigns the ids, in the order of the report.
    """

    uid: str
    version: int
    generation: int
    tallies: tuple[BucketCounts, ...]
    blocks: tuple[Block, ...] = ()
    format: int = FORMAT


_decoder = msgspec.msgpack.Decoder(Report)


def encode(report: Report) -> bytes:
    """Return the report as bytes for the store."""
    return msgspec.msgpack.encode(report)


def decode(packed: bytes, events: Sequence[str] = ()) -> Report | None:
    """Return the report with the ids of its events, or None if its format is unknown."""
    try:
        report = _decoder.decode(packed)
    except msgspec.MsgspecError:
        return None
    if report.format != FORMAT:
        return None
    ids = iter(events)
    blocks = []
    for block in report.blocks:
        named = tuple(
            (position, msgspec.structs.replace(row, event=event))
            for (position, row), event in zip(block.kept_rows, ids, strict=False)
        )
        blocks.append(msgspec.structs.replace(block, kept_rows=named))
    return msgspec.structs.replace(report, blocks=tuple(blocks))


def counts_alone(reports: Sequence[Report]) -> Report:
    """Return one report with the sum of the counts of all `reports`, but without their rows."""
    joined: dict[tuple[int, int], Bucket] = {}
    for report in reports:
        for tally in report.tallies:
            history.add(joined, (tally.step, tally.place), tally.bucket(report.generation))
    first = reports[0]
    tallies = tuple(
        BucketCounts.of(step, place, counts) for (step, place), counts in joined.items()
    )
    return Report(first.uid, first.version, first.generation, tallies)


def place_of(at: float, now: float) -> tuple[int, int]:
    """Return the step and the place of the bucket that counts a row of time `at`.

    The bucket is a minute while minutes are kept, else an hour. A row with a time in the future,
    or a time before the history begins, counts at `now`.

    >>> place_of(120.0, 180.0), place_of(0.0, 3 * 86_400.0)
    ((60, 2), (3600, 0))
    """
    age = now - at
    if age > history.HOURS_KEPT or age < -float(history.HOUR):
        at, age = now, 0.0
    step = history.MINUTE if history.by_minute(at, now) else history.HOUR
    return step, int(at // step)
