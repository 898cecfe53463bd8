"""Notices columns that stand still: a sensor that repeats one reading has probably failed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import groups
from service.cli.sheet import Rows

# A run is a reading that comes several times in succession. A run is reported if it has at least
# _LEAST_RUN rows and more than _TIMES_LONGEST times as many as the longest usual run of its column.
_LEAST_RUN = 10
_TIMES_LONGEST = 3
_ENDED_RUNS = 100  # runs of a column that must have ended before one is reported
_STANDS_OFTEN = 60  # a column with a usual run of so many rows often stands still: never reported
_RESTING_COLUMNS = 2  # a source rests as a whole if so many of its reported columns still stand
_FORGIVEN = 1  # reported runs of a column that do not count as usual; with more, all of them count

_Counts = NDArray[np.int64]


@dataclass(slots=True)
class _Source:
    """The present run of each column of one source.

    `reading` (d,) is the latest row. `lengths` (d,) has the rows of each run so far, and `since`
    (d,) the place of its first row. `named` has the reported columns that have not moved since,
    with their readings.
    """

    reading: NDArray[Any]
    lengths: _Counts
    since: _Counts
    stands: bool = False  # whether any column repeated its reading in the latest row
    named: dict[int, Any] = field(default_factory=dict)


class StillCells:
    """Follows the readings of a file, source by source. The rows come in the order of the file.

    The usual runs of a column are learned from all sources, since their sensors are alike. If a
    column stands still in several sources at one reading, their machines rest: only the first
    source is named. If several columns of a source stand still, its machine rests or its logger
    hangs: no further column of the source is named. Categories and flags are left out, because a
    state may last. A blank cell is not a reading. `columns` are the names and types of the d
    columns, None if all are numbers.
    """

    def __init__(self, columns: Sequence[tuple[str, str]] | None) -> None:
        self._numbers = np.array([kind == "number" for _, kind in columns or ()], bool)
        self._sources: dict[str, _Source] = {}
        self._longest = self._ended = self._reported = np.zeros(0, np.int64)  # (d,) each

    def new_stills(self, rows: Rows) -> Iterator[str]:
        """Take rows. Yield a sentence about the columns of a source whose runs are now too long."""
        n, d = rows.X.shape
        if not self._longest.size:
            self._ended, self._reported = np.zeros((2, d), np.int64)
            self._longest = np.ones(d, np.int64)
            self._numbers = self._numbers if self._numbers.size else np.ones(d, bool)
        names = rows.sources or ("",) * n
        repeated = self._repeated(rows, names)
        any_repeated: list[bool] = np.any(repeated, axis=1).tolist()
        for i, name in enumerate(names):
            source, stands = self._sources[name], any_repeated[i]
            if not (stands or source.stands):  # as in most rows: each reading came once
                self._ended += 1
                source.since[:] = rows.places[i]
                continue
            source.stands = stands
            over = ~repeated[i]
            # A reported run is not usual, unless the column has had several of them.
            early = self._ended < _ENDED_RUNS  # when no run is reported
            usual = (source.lengths < self._too_long()) | early | (self._reported > _FORGIVEN)
            self._longest = np.maximum(self._longest, np.where(over & usual, source.lengths, 0))
            self._ended += over
            source.lengths = np.where(over, 1, source.lengths + 1)
            source.since = np.where(over, rows.places[i], source.since)
            source.named = {j: at for j, at in source.named.items() if not over[j]}
            reported = (source.lengths == self._too_long()) & (self._ended >= _ENDED_RUNS)
            still = np.flatnonzero(reported & (self._longest < _STANDS_OFTEN)).tolist()
            self._reported[still] += 1
            shown = [
                j
                for j in still
                if len(source.named) < _RESTING_COLUMNS and not self._rests(rows.X[i, j], j)
            ]
            source.named |= {j: rows.X[i, j] for j in still}
            if shown:
                yield self._sentence(rows, i, source, shown)

    def _rests(self, reading: Any, column: int) -> bool:
        """Return whether the column was named at this reading and still stands at it."""
        return any(source.named.get(column) == reading for source in self._sources.values())

    def _sentence(self, rows: Rows, i: int, source: _Source, still: list[int]) -> str:
        """Return what to say of the columns `still` that stand still in row i of its source."""
        first = still[0]
        whose = f" of {rows.sources[i]}" if rows.sources else ""
        if len(still) == 1:
            reads = f"{rows.columns[first]}{whose} reads {rows.X[i, first]:.6g}"
            ask = "has the sensor failed?"
        else:
            names = [rows.columns[j] for j in still]
            reads = f"{', '.join(names[:-1])} and {names[-1]}{whose} stand still"
            ask = "does the machine rest, or does its logger hang?"
        longest = max(self._longest[still])
        return (
            f"{rows.file}, {rows.unit} {min(source.since[still])}: from here on {reads}, "
            f"{source.lengths[first]} times so far; before, a reading came at most {longest} times "
            f"in succession: {ask}"
        )

    def _too_long(self) -> _Counts:
        """Return from which length on a run is reported, (d,)."""
        return np.maximum(_LEAST_RUN, _TIMES_LONGEST * self._longest + 1)

    def _repeated(self, rows: Rows, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Return which readings repeat the one before of their source, (n, d); keep the latest."""
        repeated = np.zeros(rows.X.shape, bool)
        for indices in groups(names, len(names)):
            X = rows.X[indices]
            source = self._sources.setdefault(
                names[indices[0]], _Source(X[0], *np.zeros((2, X.shape[1]), np.int64))
            )
            repeated[indices] = np.concatenate([source.reading[None], X[:-1]]) == X
            source.reading = X[-1]
        repeated &= ~rows.blank & self._numbers
        return repeated
