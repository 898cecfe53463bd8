"""Reads the rows of a file for the commands, by the names or the positions of its columns."""

import contextlib
import io
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from models.columns import order, quoted
from models.errors import VectorError
from service.cli import console, table_files
from service.cli.chunk import Chunk
from service.cli.column_guess import Guess, guess, is_counter_column
from service.cli.dialect import CountedStream, Dialect, TextTable, open_table
from service.cli.growing_file import GrowingFile
from service.cli.pivot import pivoted
from service.cli.table_files import BadTable
from service.cli.text_table import CHUNK_ROWS, NamedTable, Options, numbered, read
from service.counted import counted
from service.domain.cells import is_blank

if TYPE_CHECKING:
    from service.client.configs import DetectorConfig


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a file: X (n, d), their times and sources, and their places in the file.

    X is float32. If a column is a category, X has objects: numbers, words, and None for blank
    cells. `cells[i]` are the cells of row i as text, unchanged. `columns` (d,) are the names of the
    columns in the file, or their numbers from 1 if the file has no header.
    """

    X: NDArray[Any]
    times: NDArray[np.float64] | None
    sources: tuple[str, ...] | None
    file: str
    unit: str
    places: Sequence[int]
    cells: Sequence[Sequence[str]]
    columns: Sequence[str]

    def where(self, row: int) -> str:
        """Return where a row stands: `readings.csv, line 17`."""
        return f"{self.file}, {self.unit} {self.places[row]}"

    def parts(self, most: int) -> "Iterator[Rows]":
        """Yield the rows in parts of at most `most` rows."""
        for start in range(0, len(self.X), most):
            yield self.at(range(start, min(start + most, len(self.X))))

    @property
    def blank(self) -> NDArray[np.bool_]:
        """Which values are missing, (n, d)."""
        words = self.X.dtype == object
        missing: NDArray[np.bool_] = np.array(None) == self.X if words else np.isnan(self.X)
        return missing

    @property
    def mostly_blank(self) -> NDArray[np.bool_]:
        """Which rows have fewer than half of their values, (n,). They cannot be learned."""
        few: NDArray[np.bool_] = 2 * self.blank.sum(axis=1) > self.X.shape[1]
        return few

    def at(self, places: Sequence[int] | NDArray[np.intp]) -> "Rows":
        """Return the rows with these indices, from 0."""
        indices = np.asarray(places, np.intp)
        return replace(
            self,
            X=self.X[indices],
            times=None if self.times is None else self.times[indices],
            sources=None if self.sources is None else tuple(self.sources[i] for i in places),
            places=[self.places[i] for i in places],
            cells=[self.cells[i] for i in places],
        )


class Sheet:
    """A file whose first rows have been read.

    `header` has the names of all columns, () if the file names none. `names` has the columns to
    judge, None if they have only positions. `categories` has the names that the option
    `--category` gives. With `follow`, reading waits at the end of the file for
    more, and rows come one by one, and `lines_before` is how many lines the file had at first.
    """

    def __init__(self, file: Path, options: Options, *, follow: bool = False) -> None:
        self._follow = follow
        self.categories: frozenset[str] = frozenset()
        self.lines_before = 0
        self._size = file.stat().st_size if file.is_file() else None
        self._counted: CountedStream | None = None
        self._read: float | None = None  # the share of a Parquet file that was read
        self._share: float | None = None  # the share of the file whose rows were yielded
        self.types: dict[str, Any] = {}  # pyarrow's types of a Parquet file's columns
        self.file = str(file)
        self._files = contextlib.ExitStack()
        self.header: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.names: tuple[str, ...] | None = None
        self._blanks = False
        self._table: NamedTable | None = None
        if str(file) == "-" and (sys.stdin is None or sys.stdin.closed):
            raise BadTable("-: standard input is closed")
        if file.suffix == ".npy" or (str(file) == "-" and _is_npy(sys.stdin.buffer)):
            if options != Options():
                raise BadTable(f"{file}: the columns of an .npy file have no names")
            batches = table_files.read(file)
            begun = next(batches)
            self._batches = chain([begun], batches)
            self._blanks = bool(np.isnan(begun.vectors).any())
            return
        try:
            self._open_named(file, options)
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def _open_named(self, file: Path, options: Options) -> None:
        if file.suffix == ".parquet":
            table = self._as_text(file)
        else:
            table = self._open_text(file)
            self._counted = table.bytes_read
        if options.pivot is not None:
            table, options = pivoted(table, options)
        named = read(table, options, 1 if self._follow else None)
        first = next(named.chunks)
        self._table = replace(named, chunks=chain([first], named.chunks))
        self.header, self.notes = named.header, (*named.dialect.notes, *named.notes)
        self.names = named.names if named.headed else None
        if options.categories and not named.headed:
            raise BadTable(f"{file}: --category needs names of the columns in the first line")
        self.categories = frozenset(self.header[self.place(name)] for name in options.categories)
        self._first = first

    def _as_text(self, file: Path) -> TextTable:
        """Return a Parquet file as a text table. Its rows are numbered from 1."""
        self.types, batches = table_files.parquet(file)

        def lines() -> Iterator[tuple[int, list[str]]]:
            number = 1
            yield number, list(self.types)
            for share, rows in batches:
                self._read = share
                for cells in rows:
                    number += 1
                    yield number, cells

        return TextTable(str(file), Dialect(), lines(), CountedStream(io.BytesIO()), named=True)

    def _open_text(self, file: Path) -> TextTable:
        source: BinaryIO = sys.stdin.buffer
        if str(file) != "-" and self._follow:
            growing = self._files.enter_context(GrowingFile(file))
            self.lines_before = growing.lines
            table = open_table(str(file), io.BufferedReader(growing))
            growing.note_head(table.head)
            return table
        if str(file) != "-":
            source = self._files.enter_context(file.open("rb"))
        return open_table(str(file), source)

    @property
    def first(self) -> Chunk | None:
        """The first rows as text, None for a binary file."""
        return None if self._table is None else self._first

    @cached_property
    def guessed(self) -> Guess | None:
        """The guessed types of the columns to judge, None if they have no names."""
        if self.first is None or self.names is None:
            return None
        return guess(self.first, self.names, self.categories)

    def columns(self) -> list[tuple[str, str]]:
        """Return the columns to learn, each a name and a type; all numbers without a header."""
        if self.guessed is not None:
            return list(self.guessed.columns)
        return [] if self._table is None else [(name, "number") for name in self._table.names]

    @property
    def blanks(self) -> bool:
        """Whether cells of the first rows are blank, in columns that are learned."""
        if self.guessed is not None:
            return self.guessed.blanks
        cells = chain(*self.first.cells.values()) if self.first is not None else ()
        return self._blanks or any(map(is_blank, cells))

    def place(self, column: str) -> int:
        """Return where a column stands among the cells, by its name or its number from 1.

        Reading the first rows has made sure that there is such a column.
        """
        return self.header.index(column) if column in self.header else int(column) - 1

    def share(self) -> float | None:
        """Return the share of the file whose rows were yielded. None if that is not known."""
        return self._share

    def _share_read(self) -> float | None:
        if self._counted is None or not self._size:
            return self._read
        return min(1.0, self._counted.consumed / self._size)

    def rows(
        self, columns: Sequence[tuple[str, str]] | None, *, gaps: bool, codes: bool = False
    ) -> Iterator[Rows]:
        """Yield the rows with these columns (name and type) in this order.

        None means the file's own columns, all as numbers. With `codes`, categories are numbers.
        Raises BadTable, which names the line and the column.
        """
        if self._table is None:
            for batch in self._batches:
                self._share = batch.share
                cells = [[f"{value:.9g}" for value in row] for row in batch.vectors.tolist()]
                names = numbered(batch.vectors.shape[1])
                origin = (self.file, "row", batch.places)
                yield Rows(batch.vectors, None, None, *origin, cells, names)
            return
        wanted = columns or [(name, "number") for name in self._table.names]
        names = [name for name, _ in wanted]
        reported_twice = reported_empty = False
        reported_words: set[str] = set()
        for chunk in self._table.chunks:
            if chunk.twice is not None and not reported_twice:
                reported_twice = True
                console.complain(
                    f"{chunk.where(chunk.twice)}: this hour comes twice, when the clocks go back: "
                    "the order of the rows decides; times in UTC or with their offset are exact"
                )
            if chunk.sums:
                console.complain(
                    f"{self.file}: left out at the end, like sums or notes: "
                    f"{counted(len(chunk.sums), 'line')}, from line {chunk.sums[0]} on"
                )
            X = (chunk.matrix if codes else chunk.values)(wanted, gaps=gaps)
            for name, (line, word) in chunk.words.items():
                if name not in reported_words:
                    reported_words.add(name)
                    console.complain(
                        f"{chunk.file}, line {line}, column {name}: {quoted([word])} is not a "
                        "number: words in this column are read as blank cells"
                    )
            origin = (chunk.file, "line", chunk.lines)
            rows = Rows(X, chunk.times, chunk.sources, *origin, chunk.rows, names)
            empty = rows.blank.all(axis=1)
            if empty.any():
                if not reported_empty:
                    first = rows.where(int(empty.argmax()))
                    console.complain(f"{first}: every value is blank: such rows are left out")
                reported_empty = True
                rows = rows.at(np.flatnonzero(~empty).tolist())
            yield from self._in_parts(rows)

    def _in_parts(self, rows: Rows) -> Iterator[Rows]:
        """Yield the latest rows that were read, in parts."""
        before, read, count = self._share or 0.0, self._share_read(), 0
        for part in rows.parts(CHUNK_ROWS):
            count += len(part.X)
            self._share = read and before + (read - before) * count / len(rows.X)
            yield part

    def matched(self, config: "DetectorConfig") -> list[tuple[str, str]] | None:
        """Return the detector's columns in its order, found by name in this file.

        None if the file or the detector has no names, so that positions count. Raises BadTable,
        which names the columns that do not match.
        """
        wanted = named_columns(config)
        if self.names is None or wanted is None:
            return None
        type_of = dict(wanted)
        guessed = () if self.guessed is None else self.guessed.columns
        # `learn` left a column out if it had too many words. A shorter file may have few words, and
        # the first row of a growing file cannot show that a column is a counter.
        extra = [(name, kind) for name, kind in guessed if name not in type_of]
        left_out = [name for name, kind in extra if self._follow or kind == "category"]
        if left_out:
            self.notes += (f"the detector has no column {quoted(left_out)}: left out",)
        names = [name for name in self.names if name in type_of or not self._is_left_out(name)]
        names = [name for name in names if name not in left_out]
        try:
            order(names, [name for name, _ in wanted])
        except VectorError as error:
            text = str(error).removeprefix("columns: ")
            hint = " (--time, --source or --drop takes a column out)" if "unknown" in text else ""
            if "missing" in text and (more := [name for name in self.names if name not in type_of]):
                hint = f" (the file also has {quoted(more)})"
            hint = self._pivot_hint(type_of) or hint
            raise BadTable(f"{self.file}: columns {text}{hint}") from None
        return wanted

    def _pivot_hint(self, wanted: Container[str]) -> str:
        """Return advice if the cells of a column name columns of the detector, else ''."""
        for name, cells in ({} if self.first is None else self.first.cells).items():
            if any(cell.strip() in wanted for cell in cells):
                how = (
                    "watch needs one row for each time" if self._follow else f"give --pivot {name}"
                )
                return f" (the cells of column {quoted([name])} name them: {how})"
        return ""

    def _is_left_out(self, name: str) -> bool:
        """Return whether `learn` leaves the column out.

        A column that grows by steps counts as a counter after ten of them.
        """
        if self.guessed is None or self.first is None:
            return False
        return name in self.guessed.dropped or is_counter_column(self.first, name, fewest=10)


def named_columns(config: "DetectorConfig") -> list[tuple[str, str]] | None:
    """Return the names and types of a detector's columns, None if they have no names."""
    if columns := config.get("columns"):
        return [(column["name"], column.get("type", "number")) for column in columns]
    if features := config.get("features"):
        return [(name, "number") for name in features]
    return None


def _is_npy(source: Any) -> bool:
    return bool(getattr(source, "peek", lambda _: b"")(1)[:1] == b"\x93")
