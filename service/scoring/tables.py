"""Reads rows by name from CSV with a header, and from an Arrow IPC stream."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.categories import LONGEST_WORD
from models.columns import as_word
from service.domain.cells import BadCell, is_number, typed
from service.domain.columns import Columns, column
from service.domain.row_labels import RowLabels, row_labels
from service.domain.words import SEEN
from service.problems import BadVectors, UnsupportedMedia
from service.scoring.records import Matrix, blank

_LONGEST_CELL = 2**17  # characters


@dataclass(frozen=True, slots=True)
class ByName:
    """The columns of a table that hold time, source and id, and the columns to `drop`.

    With `extra`, unknown columns are ignored.
    """

    time: str | None = None
    source: str | None = None
    id: str | None = None
    drop: tuple[str, ...] = ()
    extra: bool = False


def read_csv(body: bytes, columns: Columns, by: ByName, *, gaps: bool) -> tuple[Matrix, RowLabels]:
    """Return the rows (n, d) of CSV with a header, and their labels. Raises BadVectors."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadVectors("The CSV is not UTF-8.") from None
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[list[str]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise BadVectors(
                    f"The line has {len(cells)} cells; the header has {len(header)}.",
                    row=len(rows),
                    column=min(len(cells), len(header)),
                )
            rows.append(cells)
    except csv.Error:
        raise BadVectors("The CSV is malformed.", row=len(rows)) from None
    if not header or all(is_number(name) for name in header):
        raise BadVectors("The CSV has no header: its first line names the columns.")
    if not rows:
        raise BadVectors("There are no vectors.")
    table = dict(zip(header, zip(*rows, strict=True), strict=False))

    def values(name: str, kind: str) -> npt.NDArray[np.float64]:
        return typed(table[name], kind)

    X = _matrix(header, columns, by, values, gaps=gaps)
    labels = row_labels(
        len(X),
        None if by.time is None else list(map(_time_cell, table[by.time])),
        None if by.source is None else table[by.source],
        None if by.id is None else table[by.id],
    )
    return X, labels


def read_arrow(
    body: bytes, columns: Columns, by: ByName, *, gaps: bool
) -> tuple[Matrix, RowLabels]:
    """Return the rows (n, d) of an Arrow IPC stream, and their labels. Raises BadVectors."""
    try:
        import pyarrow as pa  # optional, and slow to import
        from pyarrow import ipc
    except ImportError:
        raise UnsupportedMedia(
            "This service cannot read Arrow: pyarrow is not installed."
        ) from None
    try:
        table = ipc.open_stream(body).read_all()
    except (pa.ArrowException, OSError, ValueError):
        raise BadVectors("Not an Arrow IPC stream.") from None
    header = list(table.column_names)
    if not len(table):
        raise BadVectors("There are no vectors.")

    def values(name: str, kind: str) -> npt.NDArray[np.float64]:
        found = table.column(name)
        if kind == "category":
            return _words(found.to_pylist())
        kinds = pa.types
        right = [kinds.is_integer, kinds.is_floating, kinds.is_decimal]
        right += [kinds.is_boolean] * (kind == "flag")
        if not any(is_right(found.type) for is_right in right):
            raise BadCell(0, "not a column of numbers")
        whole = found.cast(pa.float64(), safe=False)
        return np.asarray(whole.to_numpy(zero_copy_only=False), np.float64)

    X = _matrix(header, columns, by, values, gaps=gaps)

    def labels(name: str | None) -> list[Any] | None:
        if name is None:
            return None
        found = table.column(name)
        if pa.types.is_timestamp(found.type):
            whole = found.cast(pa.timestamp("us", tz=found.type.tz), safe=False).cast(pa.int64())
            return [None if one is None else one / 1e6 for one in whole.to_pylist()]
        return list(found.to_pylist())

    return X, row_labels(len(X), labels(by.time), labels(by.source), labels(by.id))


def _matrix(
    header: Sequence[str],
    columns: Columns,
    by: ByName,
    values: Callable[[str, str], npt.NDArray[np.float64]],
    *,
    gaps: bool,
) -> Matrix:
    """Return the detector's columns of a table, (n, d). A blank cell is NaN. Raises BadVectors."""
    aside = {name for name in (by.time, by.source, by.id) if name is not None}
    for name in (*aside, *by.drop):
        if name not in header:
            raise BadVectors(f"The query names {column(name)}; there is no such column.")
    left = [name for name in header if name not in aside and name not in by.drop]
    columns.order(left, extra=by.extra)
    found = []
    for place, (name, kind) in enumerate(zip(columns.names, columns.types, strict=True)):
        try:
            one = values(name, kind)
        except BadCell as error:
            raise BadVectors(f"{column(name)}: {error}.", row=error.row, column=place) from None
        if not gaps and (missing := np.isnan(one)).any():
            raise blank(columns, int(missing.argmax()), place)
        found.append(one)
    with np.errstate(over="ignore"):
        # A number out of range becomes infinite; the later check refuses it with row and column.
        return np.column_stack(found).astype(np.float32)


def _words(values: Sequence[object]) -> npt.NDArray[np.float64]:
    """Return the codes of the words of a column, NaN for a missing word. Raises BadCell."""
    known: dict[str | None, float] = {None: np.nan}
    codes = np.empty(len(values))
    for row, value in enumerate(values):
        word = as_word(value)
        if word not in known:
            if word is None or not 1 <= len(word) <= LONGEST_WORD:
                raise BadCell(row, f"not a word of 1 to {LONGEST_WORD} characters")
            known[word] = SEEN.code(word)
        codes[row] = known[word]
    return codes


def _time_cell(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell


def named(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list."""
    return tuple(name for name in text.split(",") if name)
