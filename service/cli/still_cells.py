"""Notices columns that stand still: a sensor that repeats one reading has probably failed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import groups
from service.cli.sheet import Rows

_LEAST = 10  # equal readings that are news
_TIMES = 3  # a run of equal readings is news if it is more than so many times as long as any before
_ENDED = 100  # runs that must have ended before: earlier, nothing is known of a column
_LIVELY = 60  # a column whose reading came so often in succession stands still now and then
_RESTS = 2  # a source of which so many columns were named and still stand rests as a whole
_FORGIVEN = 1  # runs that were news and do not count as usual; more of them are a habit

_Counts = NDArray[np.int64]


@dataclass(slots=True)
class _Source:
    """The latest reading (d,) of one source, how often each column repeated it, and from where.

    `named` has the columns that have become news since they last moved, and their readings.
    """

    reading: NDArray[Any]
    lengths: _Counts
    since: _Counts
    stands: bool = False  # whether any column repeated its reading in the latest row
    named: dict[int, Any] = field(default_factory=dict)


class StillCells:
    """Follows the readings of a file, source by source. The rows come in the order of the file.

    What is usual in a column is learned from all sources, since their sensors are alike. If a
    column stands still in several sources at one reading, the machines rest: only the first of them
    is named. If several columns of a source stand still, the machine rests or its logger hangs:
    later columns of it are not named. Only numbers count, for a state may last, and a blank cell is
    no reading. `columns` are the names and types of the d columns, None if all are numbers.
    """

    def __init__(self, columns: Sequence[tuple[str, str]] | None) -> None:
        self._numbers = np.array([kind == "number" for _, kind in columns or ()], bool)
        self._sources: dict[str, _Source] = {}
        self._longest = self._ended = self._told = np.zeros(0, np.int64)  # (d,) each

    def begun(self, rows: Rows) -> Iterator[str]:
        """Take rows. Yield a sentence about the columns of a source that begin to stand still."""
        n, d = rows.X.shape
        if not self._longest.size:
            self._ended, self._told = np.zeros((2, d), np.int64)
            self._longest = np.ones(d, np.int64)
            self._numbers = self._numbers if self._numbers.size else np.ones(d, bool)
        names = rows.sources or ("",) * n
        repeated = self._repeated(rows, names)
        some: list[bool] = np.any(repeated, axis=1).tolist()
        for i, name in enumerate(names):
            source, stands = self._sources[name], some[i]
            if not (stands or source.stands):  # as in most rows: each reading came once
                self._ended += 1
                source.since[:] = rows.places[i]
                continue
            source.stands = stands
            over = ~repeated[i]
            # A run that was news is not usual, unless such runs are a habit.
            usual = (source.lengths < self._news_at()) | (self._told > _FORGIVEN)
            self._longest = np.maximum(self._longest, np.where(over & usual, source.lengths, 0))
            self._ended += over
            source.lengths = np.where(over, 1, source.lengths + 1)
            source.since = np.where(over, rows.places[i], source.since)
            source.named = {j: at for j, at in source.named.items() if not over[j]}
            reported = (source.lengths == self._news_at()) & (self._ended >= _ENDED)
            news = np.flatnonzero(reported & (self._longest < _LIVELY)).tolist()
            self._told[news] += 1
            shown = [
                j for j in news if len(source.named) < _RESTS and not self._rests(rows.X[i, j], j)
            ]
            source.named |= {j: rows.X[i, j] for j in news}
            if shown:
                yield self._sentence(rows, i, source, shown)

    def _rests(self, reading: Any, column: int) -> bool:
        """Return whether the column was named at this reading and still stands at it."""
        return any(source.named.get(column) == reading for source in self._sources.values())

    def _sentence(self, rows: Rows, i: int, source: _Source, news: list[int]) -> str:
        """Return what to say of columns `news` that stand still in row i of its source."""
        first = news[0]
        whose = f" of {rows.sources[i]}" if rows.sources else ""
        if len(news) == 1:
            reads = f"{rows.columns[first]}{whose} reads {rows.X[i, first]:.6g}"
            ask = "has the sensor failed?"
        else:
            names = [rows.columns[j] for j in news]
            reads = f"{', '.join(names[:-1])} and {names[-1]}{whose} stand still"
            ask = "does the machine rest, or does its logger hang?"
        longest = max(self._longest[news])
        return (
            f"{rows.file}, {rows.unit} {min(source.since[news])}: from here on {reads}, "
            f"{source.lengths[first]} times so far; before, a reading came at most {longest} times "
            f"in succession: {ask}"
        )

    def _news_at(self) -> _Counts:
        """Return from which length on a run is news, (d,)."""
        return np.maximum(_LEAST, _TIMES * self._longest + 1)

    def _repeated(self, rows: Rows, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Return which readings repeat the one before of their source, (n, d); keep the latest."""
        repeated = np.zeros(rows.X.shape, bool)
        for own in groups(names, len(names)):
            X = rows.X[own]
            source = self._sources.setdefault(
                names[own[0]], _Source(X[0], *np.zeros((2, X.shape[1]), np.int64))
            )
            repeated[own] = np.concatenate([source.reading[None], X[:-1]]) == X
            source.reading = X[-1]
        repeated &= ~rows.blank & self._numbers
        return repeated
