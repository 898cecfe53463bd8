"""The history of a detector: counts of scored rows, per minute for two days, per hour for 90 days.

The store keeps the buckets in chunks of 60. A packed chunk has at most CHUNK_BYTES, so all chunks
of a detector together stay below 128 KiB. Empty buckets are not stored. The counts of rows and of
alarms stay exact. If a packed chunk is too large, `pack` makes its histograms coarser.
"""

import math
import struct
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

MINUTE, HOUR = 60, 3600
SPAN = 60  # buckets of a chunk
CHUNK_BYTES = 1500
MINUTES_KEPT, HOURS_KEPT = 2 * 86_400, 90 * 86_400  # seconds; 49 and 37 chunks, 126 KiB in all
POINTS = 1500
REGIMES = 8  # regimes that are counted: those with the lowest numbers
FORMAT = 1

BINS = 64
_LOW, _HIGH = 0.01, 1000.0  # a severity outside counts in the first or in the last bin
EDGES = np.geomspace(_LOW, _HIGH, BINS - 1)
# The precisions of histograms, finest first: (leading bits kept of a count, number of bins).
_COARSER = ((32, 64), (5, 64), (3, 64), (3, 32), (2, 16), (1, 8), (0, 0))


@dataclass(slots=True)
class Bucket:
    """The counts of the rows that were scored in one minute or one hour.

    `severities` (BINS,) counts the rows by severity. `regimes` (R + 1,) counts a sample of the
    rows: first the anomalies, then the rows of each regime. `generation` is the latest one.
    """

    rows: int = 0
    alarms: int = 0
    severity_max: float = 0.0
    generation: int = 0
    severities: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    regimes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(REGIMES + 1, np.int64))

    def add(self, other: "Bucket") -> None:
        """Add the counts of `other`."""
        self.rows += other.rows
        self.alarms += other.alarms
        self.severity_max = max(self.severity_max, other.severity_max)
        self.generation = max(self.generation, other.generation)
        self.severities = self.severities + other.severities
        self.regimes = self.regimes + other.regimes

    def percentile(self, share: float) -> float:
        """Return the severity below which this share of the rows lies, interpolated within a bin.

        The result is at most the largest severity. It is 0 without any row.
        """
        total = int(self.severities.sum())
        if not total:
            return 0.0
        reached = self.severities.cumsum()
        place = min(int(np.searchsorted(reached, share * total, side="left")), BINS - 1)
        low = float(EDGES[place - 1]) if place else 0.0
        high = float(EDGES[place]) if place < BINS - 1 else self.severity_max
        before = int(reached[place - 1]) if place else 0
        within = (share * total - before) / max(int(self.severities[place]), 1)
        return min(low + (high - low) * min(max(within, 0.0), 1.0), self.severity_max)


Buckets = dict[int, Bucket]  # buckets by start, in units of the chunk's step
Place = TypeVar("Place", bound=Hashable)
_LETTER = {MINUTE: "m", HOUR: "h"}


def bucket_of(severities: NDArray[np.float64], alarms: int, generation: int) -> Bucket:
    """Return the bucket of rows with these severities (n,)."""
    places = EDGES.searchsorted(severities, side="left")
    return Bucket(
        rows=len(severities),
        alarms=alarms,
        severity_max=float(severities.max(initial=0.0)),
        generation=generation,
        severities=np.bincount(places, minlength=BINS).astype(np.int64),
    )


def add(buckets: dict[Place, Bucket], at: Place, bucket: Bucket) -> None:
    """Add the counts of `bucket` to the bucket `at` of `buckets`."""
    if at in buckets:
        buckets[at].add(bucket)
    else:
        fresh = Bucket()
        fresh.add(bucket)
        buckets[at] = fresh


def pack(buckets: Mapping[int, Bucket]) -> bytes:
    """Return a chunk of at most SPAN buckets in at most CHUNK_BYTES."""
    for bits, bins in _COARSER:
        packed = _packed_chunk(buckets, bits, bins)
        if len(packed) <= CHUNK_BYTES:
            return packed
    raise ValueError(f"a chunk of {len(buckets)} buckets does not fit")


def unpack(packed: bytes) -> Buckets:
    """Return the buckets of a packed chunk, with the histograms as `pack` rounded them.

    The result is {} for an unknown format.
    """
    columns = _columns(packed)
    if not columns:
        return {}
    places, rows, alarms, largest, generations, severities, regimes = columns
    n, bins = severities.shape
    wide = np.zeros((n, BINS), np.int64)
    if bins:
        step = BINS // bins
        wide[:, step // 2 :: step] = severities.astype(np.int64)
    return {
        int(places[i, 0]): Bucket(
            rows=int(rows[i, 0]),
            alarms=int(alarms[i, 0]),
            severity_max=float(largest[i, 0]),
            generation=int(generations[i, 0]),
            severities=wide[i],
            regimes=regimes[i].astype(np.int64),
        )
        for i in range(n)
    }


def rows_and_alarms(packed: bytes, since: float) -> tuple[int, int]:
    """Return how many rows and alarms a packed chunk of minutes has from the time `since` on."""
    columns = _columns(packed)
    if not columns:
        return 0, 0
    places, rows, alarms = columns[:3]
    recent = places * MINUTE >= since
    return int(rows[recent].sum()), int(alarms[recent].sum())


def _columns(packed: bytes) -> list[NDArray[Any]]:
    """Return the columns (n, width) of a packed chunk, [] for an unknown format."""
    if len(packed) < 4 or packed[0] != FORMAT:
        return []
    bins, n = packed[1], struct.unpack_from("<H", packed, 2)[0]
    raw = zlib.decompress(packed[4:])
    columns, at = [], 0
    for kind, width in _column_layout(bins):
        size = np.dtype(kind).itemsize * n * width
        part = np.frombuffer(raw[at : at + size], np.uint8)
        # Byte planes: the first bytes of all values, then the second ones.
        columns.append(part.reshape(-1, n * width).T.copy().view(kind).reshape(width, n).T)
        at += size
    return columns


def _column_layout(bins: int) -> tuple[tuple[str, int], ...]:
    return (
        ("<u8", 1), ("<u8", 1), ("<u8", 1), ("<f4", 1), ("<u4", 1), ("<u4", bins),
        ("<u4", REGIMES + 1),
    )  # fmt: skip


def _packed_chunk(buckets: Mapping[int, Bucket], bits: int, bins: int) -> bytes:
    order = sorted(buckets)
    chosen = [buckets[at] for at in order]
    n = len(chosen)
    severities = np.array([bucket.severities for bucket in chosen]).reshape(n, BINS)
    regimes = np.array([bucket.regimes for bucket in chosen]).reshape(n, REGIMES + 1)
    if bins:
        severities = severities.reshape(n, bins, BINS // bins).sum(axis=2)
    else:
        severities, regimes = severities[:, :0], np.zeros_like(regimes)
    values = (
        np.array(order), np.array([bucket.rows for bucket in chosen]),
        np.array([bucket.alarms for bucket in chosen]),
        np.array([bucket.severity_max for bucket in chosen]),
        np.array([bucket.generation for bucket in chosen]),
        rounded(severities, bits), rounded(regimes, min(bits, 8)),
    )  # fmt: skip
    raw = bytearray()
    for (kind, width), column in zip(_column_layout(bins), values, strict=True):
        cells = np.ascontiguousarray(column.reshape(n, width).T.astype(kind)).reshape(-1)
        raw += cells.view(np.uint8).reshape(n * width, -1).T.tobytes()
    return bytes((FORMAT, bins)) + struct.pack("<H", n) + zlib.compress(bytes(raw), 6)


def rounded(counts: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return the counts, each rounded to `bits` significant bits; only 0 becomes 0.

    >>> rounded(np.array([0, 1, 1000]), 3).tolist()
    [0, 1, 1024]
    """
    if bits >= 32 or not counts.size:
        return np.minimum(counts, 2**32 - 1)
    exponents = np.floor(np.log2(np.maximum(counts, 1)))
    unit = np.exp2(np.maximum(exponents - max(bits, 1) + 1, 0.0))
    coarse: NDArray[np.int64] = np.minimum(np.rint(counts / unit) * unit, 2**32 - 1).astype(
        np.int64
    )
    return coarse


@dataclass(frozen=True, slots=True)
class Point:
    """One bucket of an answer; `at` is its start in seconds since 1970."""

    at: float
    bucket: Bucket


def points(
    minutes: Mapping[int, Bucket], hours: Mapping[int, Bucket], start: float, end: float, most: int
) -> list[Point]:
    """Return the history in [start, end) as at most `most` buckets of equal length, none empty.

    `minutes` and `hours` hold the buckets by start, in minutes and in hours since 1970. If there
    are minutes for an hour, they are used instead of the bucket of the hour.
    """
    detailed = {at * MINUTE // HOUR for at in minutes}
    buckets = [(at * MINUTE, minute) for at, minute in minutes.items()]
    buckets += [(at * HOUR, hour) for at, hour in hours.items() if at not in detailed]
    inside = sorted(
        ((at, bucket) for at, bucket in buckets if start <= at < end), key=lambda pair: pair[0]
    )
    if not inside:
        return []
    step = MINUTE * max(1, math.ceil((end - start) / max(most - 1, 1) / MINUTE))
    # Steps are counted from 1970, so that every point begins at a whole minute.
    joined: dict[int, Bucket] = {}
    for at, bucket in inside:
        add(joined, int(at // step), bucket)
    return [Point(max(place * step, start), bucket) for place, bucket in sorted(joined.items())]


def chunk_of(step: int, place: int) -> str:
    """Return the name of the chunk that holds the bucket `place` of `step` seconds.

    >>> chunk_of(MINUTE, 119), chunk_of(HOUR, 120)
    ('m1', 'h2')
    """
    return f"{_LETTER[step]}{place // SPAN}"


def chunks_within(start: float, end: float) -> list[str] | None:
    """Return the names of the chunks with buckets in [start, end), None for all chunks.

    The times are in seconds since 1970.

    >>> chunks_within(7200.0, 10_801.0)
    ['m2', 'm3', 'h0']
    """
    if end - start > MINUTES_KEPT:
        return None
    return [
        f"{_LETTER[step]}{number}"
        for step in (MINUTE, HOUR)
        for number in range(int(start // (SPAN * step)), int(end // (SPAN * step)) + 1)
    ]


def step_of(chunk: str) -> int:
    """Return the length in seconds of each bucket in the chunk with this name."""
    return MINUTE if chunk.startswith(_LETTER[MINUTE]) else HOUR


def by_minute(at: float, now: float) -> bool:
    """Return whether at `now` the history still has minutes for the hour that contains `at`."""
    return at // HOUR * HOUR + HOUR >= now - MINUTES_KEPT


def expired(chunks: Iterable[str], now: float) -> list[str]:
    """Return the names of the chunks that are too old to be kept at `now`."""
    too_old = []
    for name in chunks:
        start = int(name[1:]) * SPAN * step_of(name)
        if step_of(name) == MINUTE:
            kept = by_minute(start, now)
        else:
            kept = start + SPAN * HOUR >= now - HOURS_KEPT
        if not kept:
            too_old.append(name)
    return too_old


def rows_per_day(minutes: Mapping[int, Bucket], now: float) -> float | None:
    """Return the rows per day, estimated from the minutes of the last 24 hours.

    The rate counts from the first of these minutes: the rows of a detector that began at noon are
    those of half a day. The result is None if that minute is less than an hour ago.
    """
    since = int(now // MINUTE) - 86_400 // MINUTE
    recent = [(at, minute.rows) for at, minute in minutes.items() if at >= since]
    if not recent:
        return None
    elapsed = (now - min(at for at, _ in recent) * MINUTE) / 86_400
    if elapsed < 1 / 24:
        return None
    return sum(rows for _, rows in recent) / elapsed


def shares(regimes: Sequence[int] | NDArray[np.int64]) -> dict[str, float]:
    """Return the share of each regime, `none` for anomalies; {} if all counts are 0.

    >>> shares([1, 3, 0])
    {'none': 0.25, '1': 0.75}
    """
    total = float(sum(int(count) for count in regimes))
    if not total:
        return {}
    return {
        "none" if place == 0 else str(place): round(int(count) / total, 4)
        for place, count in enumerate(regimes)
        if count
    }
