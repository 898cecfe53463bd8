"""Reads rows by name from CSV with a header."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.arrays import Array
from models.columns import MAX_DIMENSION
from service.domain.cells import BadCell, is_number, typed
from service.domain.columns import Columns, column, value_in
from service.domain.row_tags import RowTags, row_tags
from service.problems import BadVectors, TooLarge
from service.scoring.pieces import MAX_ROWS, check_rows
from service.scoring.records import blank_problem

MOST_COLUMNS = 2 * MAX_DIMENSION  # of a table: twice as many as a detector can have
_LONGEST_CELL = 2**17  # characters
MOST_LINES = 2 * MAX_ROWS  # empty ones included; a line costs as much time as a small row
_TOO_WIDE = f"A table has at most {MOST_COLUMNS} columns."
# Cells that are read together. More would hold the interpreter lock for long.
_BLOCK_CELLS = 20_000


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """The names of the columns with time, source and id of the rows, and of those to `drop`.

    With `extra`, unknown columns are ignored.
    """

    time: str | None = None
    source: str | None = None
    id: str | None = None
    drop: tuple[str, ...] = ()
    extra: bool = False

    @property
    def tag_columns(self) -> tuple[str, ...]:
        """The names of the columns that hold time, source and id."""
        return tuple(name for name in (self.time, self.source, self.id) if name is not None)

    def tags(self, n: int, values: Mapping[str, list[Any]]) -> RowTags:
        """Return the tags of n rows; `values` are those of the tag columns by name."""
        times, sources, ids = (
            None if name is None else values[name] for name in (self.time, self.source, self.id)
        )
        return row_tags(n, times, sources, ids)

    def check(self, header: Sequence[str], columns: Columns) -> None:
        """Raise BadVectors if the names in `header` do not fit these names and the `columns`."""
        if len(header) > MOST_COLUMNS:
            raise BadVectors(_TOO_WIDE)
        for name in (*self.tag_columns, *self.drop):
            if name not in header:
                raise BadVectors(f"The query names {column(name)}; there is no such column.")
        for name in self.tag_columns:
            if header.count(name) > 1:
                raise BadVectors(f"Column {column(name)} is given twice.")
        special = {*self.tag_columns, *self.drop}
        columns.order([name for name in header if name not in special], extra=self.extra)


class Blocks:
    """Puts together the rows of a table that is read in blocks of rows."""

    def __init__(self, columns: Columns, *, gaps: bool) -> None:
        self._columns = columns
        self._gaps = gaps
        self._blocks: list[Array] = []
        self._rows = 0

    def add(self, rows: int, values: Callable[[str, str], npt.NDArray[np.float64]]) -> None:
        """Add a block of `rows` rows; `values(name, type)` returns the values of a column in it.

        A blank cell is NaN. Raises BadVectors or TooLarge.
        """
        check_rows(self._rows + rows)
        names, types = self._columns.names, self._columns.types
        block = np.empty((rows, len(names)), np.float32)
        for place, (name, kind) in enumerate(zip(names, types, strict=True)):
            try:
                cells = values(name, kind)
            except BadCell as error:
                row = self._rows + error.row
                raise BadVectors(f"{value_in(name)} {error}.", row=row, column=place) from None
            if not self._gaps and (missing := np.isnan(cells)).any():
                raise blank_problem(self._columns, self._rows + int(missing.argmax()), place)
            with np.errstate(over="ignore"):
                # A number out of range becomes infinite; the later check refuses it.
                block[:, place] = cells
        self._blocks.append(block)
        self._rows += rows

    def matrix(self) -> Array:
        """Return the rows (n, d) of all blocks. Raises BadVectors if there are none."""
        if not self._rows:
            raise BadVectors("There are no vectors.")
        return np.concatenate(self._blocks)


class _Lines:
    """The lines of CSV. `cells` counts the commas since it was set to 0, about one a cell."""

    def __init__(self, body: bytes) -> None:
        self._text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
        self.cells = 0

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._text):
            if number >= MOST_LINES:
                raise TooLarge(f"CSV has at most {MOST_LINES} lines. Send it in parts.")
            self.cells += line.count(",")
            if self.cells > MOST_COLUMNS:
                raise BadVectors(_TOO_WIDE)
            yield line


def read_csv(
    body: bytes, columns: Columns, roles: ColumnRoles, *, gaps: bool
) -> tuple[Array, RowTags]:
    """Return the rows (n, d) of CSV with a header, and their tags. Raises BadVectors."""
    blocks = Blocks(columns, gaps=gaps)
    tags: dict[str, list[Any]] = {}
    try:
        for table in _blocks_of_cells(body, columns, roles):

            def values(name: str, kind: str, table: Table = table) -> npt.NDArray[np.float64]:
                return typed(table[name], kind)

            blocks.add(len(next(iter(table.values()))), values)
            for name in roles.tag_columns:
                tags.setdefault(name, []).extend(table[name])
    except UnicodeDecodeError:
        raise BadVectors("The CSV is not in UTF-8. Export it as UTF-8.") from None
    X = blocks.matrix()
    if roles.time is not None:
        tags[roles.time] = list(map(_time_cell, tags[roles.time]))
    return X, roles.tags(len(X), tags)


Table = dict[str, tuple[str, ...]]


def _blocks_of_cells(body: bytes, columns: Columns, roles: ColumnRoles) -> Iterator[Table]:
    """Yield CSV in blocks of rows: each block has the cells of every column by its name."""
    csv.field_size_limit(_LONGEST_CELL)
    lines = _Lines(body)
    reader = csv.reader(lines)
    header: list[str] | None = None
    rows: list[list[str]] = []
    yielded = 0
    try:
        for cells in reader:
            lines.cells = 0
            if header is None:
                header = _header(cells, columns, roles)
            elif cells:
                if len(cells) != len(header):
                    raise _uneven_line(cells, header, yielded + len(rows))
                rows.append(cells)
                if len(rows) * len(header) >= _BLOCK_CELLS:
                    yield dict(zip(header, zip(*rows, strict=True), strict=True))
                    yielded, rows = yielded + len(rows), []
    except csv.Error:
        raise BadVectors(
            f"A cell has over {_LONGEST_CELL} characters, or an unquoted line end.",
            row=yielded + len(rows),
        ) from None
    if header is None:
        header = _header([], columns, roles)
    if rows:
        yield dict(zip(header, zip(*rows, strict=True), strict=True))


def _header(cells: Sequence[str], columns: Columns, roles: ColumnRoles) -> list[str]:
    """Return the names of the columns. Raises BadVectors if they do not fit."""
    header = [name.strip() for name in cells]
    if not header or all(is_number(name) for name in header):
        raise BadVectors("The CSV has no header: its first line names the columns.")
    roles.check(header, columns)
    return header


def _uneven_line(cells: Sequence[str], header: Sequence[str], row: int) -> BadVectors:
    return BadVectors(
        f"The line has {len(cells)} cells; the header has {len(header)}.",
        row=row,
        column=min(len(cells), len(header)),
    )


def _time_cell(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell
