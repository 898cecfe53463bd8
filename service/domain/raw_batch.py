"""A normal batch as it was sent. It waits in the buffer until the detector's context is chosen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.context import SCORED, Context, derive, groups
from models.context_choice import choose
from service.domain.chosen_context import ChosenContext
from service.domain.detector_config import DetectorConfig

_TIMED = 0.5  # at least this share of the rows needs timestamps, or no context is chosen


class RowDetails(Struct, frozen=True):
    """What a request sent beside n rows: times (n,) as float64 bytes, sources, and two masks.

    `context` (n,) marks rows that are only context. `off` (n,) marks rows that a rule leaves out.
    A mask has one byte per row, or is empty if it marks no row.
    """

    times: bytes | None = None
    sources: list[str] | None = None
    context: bytes = b""
    off: bytes = b""

    @classmethod
    def of(
        cls,
        times: NDArray[np.float64] | None,
        sources: Sequence[str] | None,
        context_rows: int,
        off: NDArray[np.bool_] | None,
        n: int,
    ) -> "RowDetails":
        """Return what is stored beside the n rows of a request."""
        context = np.zeros(n, bool)
        for rows in groups(sources, n) if context_rows else ():
            context[rows[:context_rows]] = True
        return cls(
            None if times is None else times.astype("<f8").tobytes(),
            None if sources is None else list(sources),
            context.tobytes() if context_rows else b"",
            b"" if off is None else off.tobytes(),
        )

    def written(self) -> bytes:
        """Return the bytes that are stored behind the rows."""
        return msgspec.msgpack.encode(self)


_read = msgspec.msgpack.Decoder(RowDetails).decode


class RawBatch(NamedTuple):
    """Rows X (n, d) of one entry of the buffer. `details` is None if X already has features."""

    X: NDArray[np.float32]
    details: RowDetails | None

    @classmethod
    def read(cls, payload: bytes, n: int, d: int, *, raw: bool) -> "RawBatch":
        """Return the batch of an entry with n rows of d numbers."""
        X = np.frombuffer(payload, "<f4", n * d).reshape(n, d)
        return cls(X, _read(payload[X.nbytes :]) if raw else None)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Rows of several batches, sorted by time; `place` is the original place of each row."""

    X: NDArray[np.float32]
    times: NDArray[np.float64]
    sources: list[str]
    context: NDArray[np.bool_]
    off: NDArray[np.bool_]
    place: NDArray[np.intp]


class LearnableRows(NamedTuple):
    """The features (m, w) that can be learned; `kept` (n,) marks the rows that they come from."""

    features: NDArray[np.float32]
    kept: NDArray[np.bool_]
    chosen: ChosenContext


def learnable(
    batches: Sequence[RawBatch], config: DetectorConfig, chosen: ChosenContext | None
) -> LearnableRows:
    """Derive the features of `batches` with the context `chosen`. If it is None, choose one now.

    The rows of all batches with timestamps are sorted by time. In a batch without timestamps, the
    context of a row is the rows before it in the same batch.
    """
    n = sum(len(batch.X) for batch in batches)
    starts = np.cumsum([0, *(len(batch.X) for batch in batches)])
    timed = [
        i for i, batch in enumerate(batches) if batch.details and batch.details.times is not None
    ]
    pool = _pool_of([batches[i] for i in timed], [starts[i] for i in timed])
    if chosen is None:
        chosen = _choose_context(pool, config, n)
    context, kept = chosen.context, np.zeros(n, bool)
    raw = next((batch.X.shape[1] for batch in batches if batch.details), 0)
    numbers = config.numbers(raw)
    parts: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []
    for start, (X, details) in zip(starts, batches, strict=False):
        at = np.arange(start, start + len(X))
        if details is None:
            parts.append((at, X))
        elif details.times is None or context is None:
            parts.append(_features_of_batch(at, X, details, context, numbers))
    if pool is not None and context is not None:
        features, states = derive(
            context, pool.X, numbers, times=pool.times, sources=pool.sources, left_out=pool.off
        )
        good = (states == SCORED) & ~pool.context
        parts.append((pool.place[good], features[good]))
    places = np.concatenate([at for at, _ in parts])
    kept[places] = True
    in_order = np.concatenate([features for _, features in parts])[np.argsort(places)]
    return LearnableRows(in_order, kept, chosen)


def _choose_context(pool: _Pool | None, config: DetectorConfig, n: int) -> ChosenContext:
    if pool is None:
        return ChosenContext(context=None, why=choose(np.zeros((0, 0), np.float32), None, None)[1])
    if len(pool.X) < _TIMED * n:
        why = "no context: most rows came without timestamps"
        return ChosenContext(context=None, why=why)
    rows = np.flatnonzero(~pool.off & ~_repeated_rows(pool))
    numbers = config.numbers(pool.X.shape[1])
    context, why = choose(
        pool.X[np.ix_(rows, numbers)], pool.times[rows], [pool.sources[i] for i in rows]
    )
    return ChosenContext(context=context, why=why)


def _repeated_rows(pool: _Pool) -> NDArray[np.bool_]:
    """Return which rows are repetitions: context rows that the source had already sent."""
    again = np.zeros(len(pool.X), bool)
    for rows in groups(pool.sources, len(pool.X)):
        again[rows[1:]] = np.diff(pool.times[rows]) <= 0
    return again


def _features_of_batch(
    at: NDArray[np.intp],
    X: NDArray[np.float32],
    details: RowDetails,
    context: Context | None,
    numbers: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the features of one batch without other batches, and the places of its rows."""
    off, known = _mask(details.off, len(X)), _mask(details.context, len(X))
    if context is None:
        good = ~(off | known)
        return at[good], X[good]
    if context.needs_times:
        return at[:0], np.zeros((0, context.width(numbers)), np.float32)
    features, states = derive(context, X, numbers, sources=details.sources, left_out=off)
    good = (states == SCORED) & ~known
    return at[good], features[good]


def _mask(packed: bytes, n: int) -> NDArray[np.bool_]:
    return np.frombuffer(packed, bool) if packed else np.zeros(n, bool)


def _pool_of(batches: Sequence[RawBatch], starts: Iterable[int]) -> _Pool | None:
    if not batches:
        return None
    times, sources, context, off, place = [], [], [], [], []
    for (X, details), start in zip(batches, starts, strict=True):
        assert details is not None
        assert details.times is not None
        times.append(np.frombuffer(details.times, "<f8"))
        sources += details.sources or [""] * len(X)
        context.append(_mask(details.context, len(X)))
        off.append(_mask(details.off, len(X)))
        place.append(np.arange(start, start + len(X)))
    when = np.concatenate(times)
    # Among rows of equal time, the row to be learned comes first and its repetitions follow.
    known = np.concatenate(context)
    order = np.lexsort((known, when))
    return _Pool(
        np.concatenate([batch.X for batch in batches])[order],
        when[order],
        [sources[i] for i in order],
        known[order],
        np.concatenate(off)[order],
        np.concatenate(place)[order],
    )
