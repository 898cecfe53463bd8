"""Says which columns of a file are blank: a sensor may have failed."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.cli.sheet import Rows

_STEADY = 10  # filled rows after which a blank cell is news


class BlankCells:
    """Follows the blank cells of a file. The rows come in the order of the file."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._filled: dict[str, NDArray[np.int64]] = {}  # by source: latest filled rows, (d,)

    def count(self, rows: Rows) -> None:
        """Count the blank cells of each column."""
        counts = rows.blank.sum(axis=0).tolist()
        self._rows.update({name: n for name, n in zip(rows.columns, counts, strict=True) if n})

    def summary(self) -> Iterator[str]:
        """Yield a sentence about each column that was blank in some row, the blankest first."""
        for name, n in self._rows.most_common():
            some = "1 row" if n == 1 else f"{n} rows"
            yield f"{name} is blank in {some}: judged on the other columns"

    def new_blanks(self, rows: Rows) -> Iterator[str]:
        """Yield a sentence about each cell that is blank after many rows in which it was filled."""
        for i, blank in enumerate(rows.blank):
            source = rows.sources[i] if rows.sources is not None else ""
            filled = self._filled.get(source, np.zeros(len(blank), np.int64))
            for j in np.flatnonzero(blank & (filled >= _STEADY)).tolist():
                whose = f" of {source}" if source else ""
                yield f"{rows.where(i)}: {rows.columns[j]}{whose} is blank: judged on the others"
            self._filled[source] = np.where(blank, 0, filled + 1)
