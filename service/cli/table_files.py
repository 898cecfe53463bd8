"""Tables of vectors in binary files: NPY in batches, and the columns of Parquet.

Every batch knows where its rows stand in the file, so that an error can name the place.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

_BATCH_BYTES = 4 * 2**20  # well inside the service's default of 32 MiB for a body
_BATCH_ROWS = 5000  # so that a progress bar moves


class BadTable(ValueError):  # noqa: N818 - it states what is wrong
    """A file that is not a table of numbers; the message names the file and the place."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file: an (n, d) float32 matrix, and where row 0 stands.

    `places[i]` is the number of row i in the file, from zero.
    """

    file: str
    vectors: np.ndarray
    places: Sequence[int]
    unit: str

    def where(self, row: int) -> str:
        """Return where a row of this batch stands: `readings.csv, line 17`."""
        return f"{self.file}, {self.unit} {self.places[row]}"


def read(file: Path) -> Iterator[Batch]:
    """Yield the vectors of an `.npy` file (`-` is standard input) in batches.

    Raises BadTable naming the place, and OSError.
    """
    if str(file) == "-":
        yield from _npy("-", io.BytesIO(sys.stdin.buffer.read()))
    else:
        yield from _npy(str(file), file)


def _batch_rows(dimension: int) -> int:
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // (4 * dimension)))


def _npy(file: str, source: Path | BinaryIO) -> Iterator[Batch]:
    try:
        # A file is mapped, so that one larger than memory is read as it is sent.
        matrix = (
            npy.open_memmap(source, "r")
            if isinstance(source, Path)
            else npy.read_array(source, allow_pickle=False)
        )
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy parses the header as Python
        raise BadTable(f"{file}: not an .npy file of numbers ({error})") from None
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or 0 in matrix.shape:
        raise BadTable(
            f"{file} holds {matrix.dtype} of shape {matrix.shape}; wanted is a matrix of numbers"
        )
    yield from _slices(file, matrix)


def parquet_columns(file: Path) -> dict[str, list[str]]:
    """Return the columns of a Parquet file by name, as text: `` for what is missing; BadTable."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise BadTable(f"{file}: reading Parquet takes pyarrow (pip install pyarrow)") from None
    try:
        columns = parquet.read_table(file).to_pydict()
    except (ArrowException, TypeError, ValueError) as error:
        raise BadTable(f"{file}: {error}") from None
    return {
        name: ["" if value is None else str(value) for value in values]
        for name, values in columns.items()
    }


def _slices(file: str, matrix: np.ndarray) -> Iterator[Batch]:
    size = _batch_rows(matrix.shape[1])
    for start in range(0, len(matrix), size):
        with np.errstate(over="ignore"):
            part = np.asarray(matrix[start : start + size]).astype(np.float32)
        yield Batch(file, part, range(start, start + len(part)), "row")
