"""Reads tables from binary files: NPY and Parquet.

Every batch knows the places of its rows in the file, so that an error can name the place.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_BATCH_BYTES = 4 * 2**20  # well below the service's default limit of 32 MiB for a body
_BATCH_ROWS = 5000  # small enough for a progress bar to move


class BadTable(ValueError):  # noqa: N818 - it states what is wrong
    """The file is not a valid table. The message names the file and the place."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file as an (n, d) float32 matrix.

    `places[i]` is the number of row i in the file, from zero. `share` is how much of the file has
    been read, from 0 to 1.
    """

    vectors: np.ndarray
    places: Sequence[int]
    share: float


def read(file: Path) -> Iterator[Batch]:
    """Yield the vectors of an `.npy` file (`-` is standard input) in batches.

    Raises BadTable, which names the place, and OSError.
    """
    source = io.BytesIO(sys.stdin.buffer.read()) if str(file) == "-" else file
    yield from _slices(str(file), _mapped(str(file), source))


def _mapped(file: str, source: Path | BinaryIO) -> NDArray[Any]:
    try:
        # The file is mapped, so that it may be larger than memory.
        matrix: NDArray[Any] = (
            npy.open_memmap(source, "r")
            if isinstance(source, Path)
            else npy.read_array(source, allow_pickle=False)
        )
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy parses the header as Python
        raise BadTable(f"{file}: not an .npy file of numbers ({error})") from None
    _check_matrix(file, matrix)
    return matrix


def parquet(file: Path) -> tuple[dict[str, Any], Iterator[tuple[float, list[list[str]]]]]:
    """Return the types of a Parquet file's columns, and its rows as text in batches.

    A missing cell is ''. Each batch comes with the share of the file that has been read with it.
    Raises BadTable.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow import parquet as arrow
    except ImportError:
        raise BadTable(f"{file}: to read Parquet, pip install pyarrow") from None
    try:
        opened = arrow.ParquetFile(file)
    except (ArrowException, TypeError, ValueError) as error:
        raise BadTable(f"{file}: {error}") from None

    def rows() -> Iterator[tuple[float, list[list[str]]]]:
        read, whole = 0, max(1, opened.metadata.num_rows)
        with opened:
            try:
                for batch in opened.iter_batches(_BATCH_ROWS):
                    read += len(batch)
                    columns = ([_text(cell) for cell in column.to_pylist()] for column in batch)
                    yield read / whole, list(map(list, zip(*columns, strict=True)))
            except (ArrowException, TypeError, ValueError) as error:
                raise BadTable(f"{file}: {error}") from None

    return {field.name: field.type for field in opened.schema_arrow}, rows()


def _text(value: object) -> str:
    return "" if value is None else str(value)


def arrays(file: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return the matrix of an `.npy` or `.npz` file, and the vectors of the archive by name.

    The matrix of an `.npy` file is mapped, an archive is read whole. Raises BadTable.
    """
    if file.suffix != ".npz":
        return _mapped(str(file), file), {}
    try:
        by_name = dict(np.load(file, allow_pickle=False))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy parses the header as Python
        raise BadTable(f"{file}: not a file of numbers ({error})") from None
    wide = [name for name in by_name if by_name[name].ndim == 2]
    if len(wide) != 1:
        raise BadTable(
            f"{file} holds {len(wide)} matrices; give a file with one matrix, and vectors beside it"
        )
    matrix = by_name.pop(wide[0])
    _check_matrix(str(file), matrix)
    return matrix, {
        name: array for name, array in by_name.items() if array.shape == matrix.shape[:1]
    }


def _check_matrix(file: str, matrix: NDArray[Any]) -> None:
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or 0 in matrix.shape:
        raise BadTable(
            f"{file} holds {matrix.dtype} of shape {matrix.shape}; give a matrix of numbers with "
            "at least one row"
        )


def _slices(file: str, matrix: NDArray[Any]) -> Iterator[Batch]:
    for start, rows in pieces(file, matrix):
        with np.errstate(over="ignore"):
            part = rows.astype(np.float32)
        places = range(start, start + len(part))
        yield Batch(part, places, places.stop / len(matrix))


def pieces(file: str | Path, matrix: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the matrix in parts: the number of the first row, and the rows (n, d), unconverted."""
    width = matrix.shape[1]
    size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // (4 * width)))
    # The read pages of a memory map count as memory of this process, so the file is read instead.
    begin = matrix.offset if isinstance(matrix, np.memmap) else 0
    mapped = begin > 0 and matrix.flags.c_contiguous
    for start in range(0, len(matrix), size):
        if not mapped:
            yield start, np.asarray(matrix[start : start + size])
            continue
        count = min(size, len(matrix) - start)
        offset = begin + start * width * matrix.itemsize
        numbers = np.fromfile(file, matrix.dtype, count * width, offset=offset)
        yield start, numbers.reshape(count, width)
