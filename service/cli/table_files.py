"""Tables of vectors in files: CSV, NPY and Parquet, read in batches.

Every batch knows where its rows stand in the file, so that an error can name the place.
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.lib import format as npy

_BATCH_BYTES = 4 * 2**20  # well inside the service's default of 32 MiB for a body
_TEXT: Any = {"encoding": "utf-8-sig", "errors": "replace", "newline": ""}
_BATCH_ROWS = 5000  # so that a progress bar moves


class BadTable(ValueError):  # noqa: N818 - it states what is wrong
    """A file that is not a table of numbers; the message names the file and the place."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file: an (n, d) float32 matrix, and where row 0 stands.

    `places[i]` is the line of row i in a CSV file, and its row, from zero, in a binary one.
    """

    file: str
    vectors: np.ndarray
    places: Sequence[int]
    unit: str

    def where(self, row: int) -> str:
        """Return where a row of this batch stands: `readings.csv, line 17`."""
        return f"{self.file}, {self.unit} {self.places[row]}"


def read(file: Path) -> Iterator[Batch]:
    """Yield the vectors of `file` (CSV, `.npy`, `.parquet`; `-` is standard input) in batches.

    A first CSV line that holds no number at all is a header. Standard input may be NPY or CSV.
    Raises BadTable naming the place, and OSError.
    """
    if str(file) == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise BadTable("-: standard input is closed")
        source = sys.stdin.buffer
        # NPY says what it is in its first byte, and no CSV of numbers starts so.
        if getattr(source, "peek", lambda _: b"")(1)[:1] == b"\x93":
            yield from _npy("-", io.BytesIO(source.read()))
        else:
            yield from _csv("-", io.TextIOWrapper(source, **_TEXT))
    elif file.suffix == ".parquet":
        yield from _parquet(file)
    elif file.suffix == ".npy":
        yield from _npy(str(file), file)
    else:
        with file.open(**_TEXT) as text:
            yield from _csv(str(file), text)


def _batch_rows(dimension: int) -> int:
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // (4 * dimension)))


def _csv(file: str, text: TextIO) -> Iterator[Batch]:
    rows = _rows(text, file)
    first = next(rows, None)
    if first is None:
        raise BadTable(f"{file} is empty")
    width = len(first[1])
    if not any(_is_number(field) for field in first[1]):
        first = next(rows, None)
        if first is None:
            raise BadTable(f"{file} holds a header and nothing else")
    size = _batch_rows(width)
    lines: list[int] = []
    values: list[list[float]] = []
    for line, fields in chain([first], rows):
        values.append(_floats(fields, width, f"{file}, line {line}"))
        lines.append(line)
        if len(values) == size:
            yield _batch(file, values, lines)
            lines, values = [], []
    if values:
        yield _batch(file, values, lines)


def _rows(text: TextIO, file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the lines that are not blank."""
    reader = csv.reader(text)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise BadTable(f"{file}, line {reader.line_num}: {error}") from None


def _batch(file: str, values: list[list[float]], lines: list[int]) -> Batch:
    with np.errstate(over="ignore"):
        # What float32 cannot hold becomes infinite, which the service refuses by row and column.
        return Batch(file, np.array(values).astype(np.float32), lines, "line")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _floats(fields: list[str], width: int, where: str) -> list[float]:
    if len(fields) != width:
        raise BadTable(f"{where}: {len(fields)} fields where the first line has {width}")
    try:
        return [float(field) for field in fields]
    except ValueError:
        column = next(i for i, field in enumerate(fields) if not _is_number(field))
        raise BadTable(f"{where}, column {column + 1}: not a number") from None


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


def _parquet(file: Path) -> Iterator[Batch]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise BadTable(f"{file}: reading Parquet takes pyarrow (pip install pyarrow)") from None
    try:
        columns = parquet.read_table(file).to_pydict()
        matrix = np.column_stack(
            [np.asarray(column, dtype=np.float64) for column in columns.values()]
        )
    except (ArrowException, TypeError, ValueError) as error:
        raise BadTable(f"{file}: {error}") from None
    yield from _slices(str(file), matrix)


def _slices(file: str, matrix: np.ndarray) -> Iterator[Batch]:
    size = _batch_rows(matrix.shape[1])
    for start in range(0, len(matrix), size):
        with np.errstate(over="ignore"):
            part = np.asarray(matrix[start : start + size]).astype(np.float32)
        yield Batch(file, part, range(start, start + len(part)), "row")
