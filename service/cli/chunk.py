"""Some rows of a text table, by the names of its columns, and what their cells mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.columns import quoted
from service.cli import units
from service.cli.table_files import BadTable
from service.domain.cells import NO_NUMBER, BadCell, is_blank, is_word, numbers, typed


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows as text. Row i is in line `lines[i]`. `cells[name]` is a column, (n,) strings.

    `rows[i]` has all cells of row i, also those of dropped columns. `twice` is the first row whose
    local time exists twice, because clocks were set back. It is None if there is no such row.
    `sums` are the numbers of the last lines of the file that are not rows and were left out: a line
    with a word in place of a time, such as a sum, or a note of one cell.
    `units[name]` is the unit of a column's numbers, "" without one. `words[name]` is the first word
    that was read as a blank cell in a column of numbers, with its line. All chunks of a file share
    `units` and `words`.
    """

    file: str
    lines: Sequence[int]
    cells: Mapping[str, Sequence[str]]
    rows: Sequence[Sequence[str]]
    times: NDArray[np.float64] | None = None
    sources: tuple[str, ...] | None = None
    comma: bool = False
    twice: int | None = None
    sums: Sequence[int] = ()
    units: dict[str, str] = field(default_factory=dict)
    words: dict[str, tuple[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """Return where a row stands: `readings.csv, line 17`."""
        return f"{self.file}, line {self.lines[row]}"

    def numbers(self, name: str, *, gaps: bool) -> NDArray[np.float64]:
        """Return the numbers of a column (n,), NaN for a blank cell. Raises BadCell.

        With `gaps`, a word such as `no signal` is a blank cell, too. The first rows of the file
        decide whether its numbers have a unit. The unit is left out.
        """
        cells = self.cells[name]
        if name not in self.units and not all(map(is_blank, cells)):
            self.units[name] = units.common(cells, comma=self.comma)
        if unit := self.units.get(name):
            cells = units.without(cells, unit)
        try:
            return numbers(cells, comma=self.comma)
        except BadCell as error:
            if not (gaps and is_word(cells[error.row])):
                raise
            self.words.setdefault(name, (self.lines[error.row], cells[error.row].strip()))
        return numbers(["" if is_word(cell) else cell for cell in cells], comma=self.comma)

    def values(self, columns: Sequence[tuple[str, str]], *, gaps: bool) -> NDArray[Any]:
        """Return columns as `matrix` does, or as objects if one of them is a category.

        The objects are numbers and words. A blank cell is then None.
        """
        X = self.matrix(columns, gaps=gaps)
        words = [j for j, (_, kind) in enumerate(columns) if kind == "category"]
        if not words:
            return X
        values: NDArray[Any] = X.astype(object)
        values[np.isnan(X)] = None
        for j in words:
            stripped = [cell.strip() for cell in self.cells[columns[j][0]]]
            values[:, j] = [word or None for word in stripped]
        return values

    def matrix(self, columns: Sequence[tuple[str, str]], *, gaps: bool) -> NDArray[np.float32]:
        """Return columns (name and type) as a matrix (n, d) of float32. A blank cell is NaN.

        Categories are codes. Raises BadTable, which names line and column, for a cell that does
        not have the column's type, for a number beyond float32, and, without `gaps`, for a blank
        cell.
        """
        X = np.empty((len(self), len(columns)), np.float32)
        for j, (name, kind) in enumerate(columns):
            try:
                values = (
                    self.numbers(name, gaps=gaps)
                    if kind == "number"
                    else typed(self.cells[name], kind)
                )
            except BadCell as error:
                cell = quoted([self.cells[name][error.row]])
                place = f"{self.where(error.row)}, column {name}"
                hint = ""
                if str(error) == NO_NUMBER:
                    hint = ": leave the cell blank, or --drop the column"
                raise BadTable(f"{place}: {cell} {error}{hint}") from None
            if not gaps and (blank := np.isnan(values)).any():
                raise BadTable(
                    f"{self.where(int(blank.argmax()))}, column {name} is blank: fill it, delete "
                    'the line, or set `"missing": "impute"` in the config of the detector'
                )
            with np.errstate(over="ignore"):
                X[:, j] = values
            if (beyond := np.isinf(X[:, j])).any():
                place = self.where(int(beyond.argmax()))
                raise BadTable(f"{place}, column {name}: the number is too large for float32")
        return X
