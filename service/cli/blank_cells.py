"""Says which columns of a file are blank: a sensor may have failed."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.cli.sheet import Rows
from service.counted import counted

# A run is a number of blank cells in succession. A run is reported if _STEADY filled cells came
# before it, once it is over _TIMES_LONGEST times as long as the longest usual run of its column.
_STEADY = 10
_TIMES_LONGEST = 3
_FORGIVEN = 1  # reported runs of a column that do not count as usual; with more, all of them count


class BlankCells:
    """Follows the blank cells of a file. The rows come in the order of the file."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        # By source: the filled cells before the present run of each column, and its length, (2, d).
        self._latest: dict[str, NDArray[np.int64]] = {}
        self._longest = self._reported = np.zeros(0, np.int64)  # (d,) each

    def count(self, rows: Rows) -> None:
        """Count the blank cells of each column."""
        counts = rows.blank.sum(axis=0).tolist()
        self._rows.update({name: n for name, n in zip(rows.columns, counts, strict=True) if n})

    def summary(self) -> Iterator[str]:
        """Yield a sentence about each column that was blank in some row, the blankest first."""
        for name, n in self._rows.most_common():
            yield f"{name} is blank in {counted(n, 'row')}; the other columns are judged"

    def new_blanks(self, rows: Rows) -> Iterator[str]:
        """Yield a sentence about each column of a source that is blank for longer than usual."""
        if not self._longest.size:
            self._longest, self._reported = np.zeros((2, rows.blank.shape[1]), np.int64)
        for i, blank in enumerate(rows.blank):
            source = rows.sources[i] if rows.sources is not None else ""
            filled, before = self._latest.get(source, np.zeros((2, len(blank)), np.int64))
            usual = (before <= _TIMES_LONGEST * self._longest) | (self._reported > _FORGIVEN)
            self._longest = np.maximum(self._longest, np.where(~blank & usual, before, 0))
            lengths = np.where(blank, before + 1, 0)
            filled = np.where(blank, filled, np.where(before > 0, 1, filled + 1))
            self._latest[source] = np.stack([filled, lengths])
            too_long = (filled >= _STEADY) & (lengths == _TIMES_LONGEST * self._longest + 1)
            self._reported += too_long
            for j in np.flatnonzero(too_long).tolist():
                whose = f" of {source}" if source else ""
                times = "" if lengths[j] == 1 else f" for {lengths[j]} rows"
                name = f"{rows.columns[j]}{whose}"
                yield f"{rows.where(i)}: {name} is blank{times}; the other columns are judged"
