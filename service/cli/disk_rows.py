"""Rows in a temporary file, for data that is read more than once and may exceed the memory."""

import tempfile
import weakref
from collections.abc import Iterator
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_AT_ONCE = 50_000  # rows that are read at once


class DiskRows:
    """Rows of one type and width, added at the end and read by position: (n,) or (n, width).

    The rows are in a file without a name, which disappears when the process ends.
    """

    def __init__(self, dtype: type[np.generic], width: int | None = None) -> None:
        self._dtype, self._width, self._rows = np.dtype(dtype), width, 0
        self._file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - it lives as long as the rows
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._rows

    def add(self, rows: ArrayLike) -> None:
        """Add rows at the end."""
        array = np.ascontiguousarray(rows, self._dtype)
        self._file.seek(0, 2)
        self._file.write(array.tobytes())
        self._rows += len(array)

    @overload
    def __getitem__(self, rows: int) -> Any: ...
    @overload
    def __getitem__(self, rows: slice) -> NDArray[Any]: ...
    def __getitem__(self, rows: int | slice) -> Any:
        """Return a row, or the rows of a slice without a step. They are read from the file."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self._rows)
            return self._read(start, max(stop - start, 0))
        return self._read(range(self._rows)[rows], 1)[0]

    def _read(self, start: int, rows: int) -> NDArray[Any]:
        self._file.flush()
        # The file is read, not mapped: the read pages of a map count as memory of this process.
        width = self._width or 1
        self._file.seek(start * width * self._dtype.itemsize)
        numbers = np.fromfile(self._file, self._dtype, rows * width)
        return numbers if self._width is None else numbers.reshape(rows, width)

    def ordered(self, order: NDArray[np.intp]) -> "DiskRows":
        """Return the same rows in another order: row i is row `order[i]` of this one."""
        self._file.flush()
        shape = (self._rows,) if self._width is None else (self._rows, self._width)
        mapped = np.memmap(self._file, self._dtype, "r", shape=shape)
        rows = DiskRows(self._dtype.type, self._width)
        for part in parts(self._rows):
            rows.add(mapped[order[part]])
        return rows


def parts(rows: int) -> Iterator[slice]:
    """Yield slices of at most _AT_ONCE rows that together cover `rows` rows."""
    for start in range(0, rows, _AT_ONCE):
        yield slice(start, min(start + _AT_ONCE, rows))
