"""Reads a text table in chunks, by the names of its columns: times, sources and values."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from itertools import chain, islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from models.columns import MAX_DIMENSION, quoted
from service.cli.chunk import Chunk
from service.cli.dialect import Dialect, TextTable
from service.cli.table_files import BadTable
from service.cli.time_hint import time_hint
from service.domain.cells import (
    BadCell,
    Clock,
    Latest,
    is_blank,
    is_number,
)

_CHUNK_CELLS = 2**20
# A note has three letters. A last line that was cut off in a time or a number has fewer.
_WORD = re.compile(r"[^\W\d_]{3}")
_FIRST_LINES = 100  # lines of a file among which its first row stands
CHUNK_ROWS = 5000
# The first rows decide the types of the columns: they are many, but are held in memory.
_FIRST_ROWS, _FIRST_CELLS = 50_000, 2**18


@dataclass(frozen=True, slots=True)
class Options:
    """The columns with times and sources, and those to drop, each by name or by number from 1.

    `categories` are the names of columns whose numbers are words, such as codes. `time` may be two
    columns with a comma between them, of which one has the date. If a row has one reading, `pivot`
    is the column that names what was read.
    """

    time: str | None = None
    source: str | None = None
    drop: tuple[str, ...] = ()
    time_format: str | None = None
    timezone: str = "UTC"
    pivot: str | None = None
    categories: tuple[str, ...] = ()

    def time_columns(self, names: Sequence[str]) -> list[str]:
        """Return the columns that have the time of a row in a file with the columns `names`."""
        if self.time is None:
            return []
        return [self.time] if self.time in names else self.time.split(",")

    def clock(self) -> Clock:
        """Return the reader of the times. Raises BadTable for an unknown time zone."""
        try:
            zone = UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise BadTable(
                f"--timezone {self.timezone}: not an IANA name, such as Europe/Berlin"
            ) from None
        return Clock(self.time_format, zone)


@dataclass(frozen=True, slots=True)
class NamedTable:
    """A table with named columns. `names` has the columns to judge, `header` has all columns.

    `headed` is False if the file has no header. `notes` tell a person what was noticed.
    """

    file: str
    header: tuple[str, ...]
    names: tuple[str, ...]
    dialect: Dialect
    notes: tuple[str, ...]
    chunks: Iterator[Chunk]
    headed: bool


def read(table: TextTable, options: Options, rows: int | None = None) -> NamedTable:
    """Read a table by its header. Raises BadTable, which names line and column.

    A chunk has `rows` rows, or as many as fill a request well. Columns of a file without a header
    are named by their numbers, from 1. Only the header and one line are read before the first
    chunk is requested.
    """
    clock = options.clock()
    line, first = next(table.lines, (0, []))
    comma = table.dialect.comma
    header = table.named or not any(is_number(cell, comma=comma) for cell in first)
    names = [_name(cell) for cell in first] if header else numbered(len(first))
    notes: list[str] = []
    trailing = header and len(names) > 1 and not names[-1]
    names = names[:-1] if trailing else names
    if len(names) > MAX_DIMENSION:
        raise BadTable(
            f"{table.file} has {len(names)} columns, but a detector takes at most {MAX_DIMENSION}: "
            "--drop some, or export fewer"
        )
    rest = table.lines if header else chain([(line, first)], table.lines)
    begun = next(rest, None)
    if begun is None:
        raise BadTable(f"{table.file} holds only a header")
    roles = _roles(table.file, names, options)
    for place, name in enumerate(names):
        if not name and place not in roles.dropped:
            notes.append(f"column {place + 1} has no name: dropped")
            roles.dropped.add(place)
    kept = [place for place in range(len(names)) if place not in roles.not_judged]
    _distinct(table.file, [names[place] for place in kept])
    if not kept:
        raise BadTable(f"{table.file}: there is no column to judge")
    reader = _Reader(table.file, names, kept, roles, clock, comma)
    chunks = reader.chunks(chain([begun], rest), rows)
    judged = tuple(names[place] for place in kept)
    return NamedTable(table.file, tuple(names), judged, table.dialect, tuple(notes), chunks, header)


def _name(cell: str) -> str:
    """Return the name of a column, which a spreadsheet may show in several lines."""
    return " ".join(cell.split()) if "\n" in cell else cell.strip()


def numbered(width: int) -> list[str]:
    """Return the names of columns without a header: their numbers from 1."""
    return [str(number) for number in range(1, width + 1)]


@dataclass(slots=True)
class _Roles:
    time: list[int]
    source: int | None
    dropped: set[int]

    @property
    def not_judged(self) -> set[int]:
        sources = set() if self.source is None else {self.source}
        return self.dropped | set(self.time) | sources


def _roles(file: str, names: list[str], options: Options) -> _Roles:
    def place(option: str, wanted: str) -> list[int]:
        places = [i for i, name in enumerate(names) if name == wanted]
        if not places and wanted.isdigit() and 1 <= int(wanted) <= len(names):
            places = [int(wanted) - 1]
        if not places:
            hint = "" if len(names) > 1 else "; cells are split by commas, semicolons, tabs or bars"
            raise BadTable(
                f"{file}: there is no column {quoted([wanted])} ({option}); it has "
                f"{quoted(names)}{hint}"
            )
        return places

    time = [place("--time", part)[0] for part in options.time_columns(names)]
    source = None if options.source is None else place("--source", options.source)[0]
    for name in options.categories:
        place("--category", name)
    dropped = {i for name in options.drop for i in place("--drop", name)}
    return _Roles(time, source, dropped)


def _distinct(file: str, names: list[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadTable(
            f"{file}: the header names {quoted(twice)} twice: rename one, or --drop the name"
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    file: str
    names: list[str]
    kept: list[int]
    roles: _Roles
    clock: Clock
    comma: bool
    latest: dict[str, Latest] = field(default_factory=dict)  # the time of each source's latest row
    units: dict[str, str] = field(default_factory=dict)
    words: dict[str, tuple[int, str]] = field(default_factory=dict)

    def chunks(self, lines: Iterator[tuple[int, list[str]]], rows: int | None) -> Iterator[Chunk]:
        width = len(self.names)
        later = rows or max(1, min(CHUNK_ROWS, _CHUNK_CELLS // width))
        size = rows or max(later, min(_FIRST_ROWS, _FIRST_CELLS // width))
        while numbered_lines := list(islice(lines, size)):
            end = len(numbered_lines)
            if end < size:
                end = self._before_sums(numbered_lines)
            size = later
            rows_of_chunk = [self._row(*numbered) for numbered in numbered_lines[:end]]
            chunk = self._chunk([line for line, _ in numbered_lines[:end]], rows_of_chunk)
            yield replace(chunk, sums=[line for line, _ in numbered_lines[end:]])

    def _before_sums(self, lines: Sequence[tuple[int, list[str]]]) -> int:
        """Return how many rows come before the last lines that are sums or a note."""
        end = len(lines)
        while end > 1 and self._is_no_row(lines[end - 1][1]):
            end -= 1
        return end

    def _is_no_row(self, cells: list[str]) -> bool:
        time = self._time_of(cells)
        filled = [cell for cell in cells if cell.strip()]
        if len(filled) == 1 < len(self.names) and not self._is_time(time):
            return _WORD.search(filled[0]) is not None  # a note, such as `(17 rows)`
        return not is_blank(time) and not any(map(str.isdigit, time))

    def _row(self, line: int, cells: list[str]) -> list[str]:
        width = len(self.names)
        if len(cells) == width + 1 and not cells[-1].strip():
            return cells[:-1]  # the line ends with a delimiter
        if len(cells) != width:
            raise BadTable(
                f"{self.file}, line {line} has {len(cells)} cells, but there are {width} columns: "
                "correct or delete the line"
            )
        return cells

    def _chunk(self, lines: list[int], rows: list[list[str]]) -> Chunk:
        columns = list(zip(*rows, strict=True))
        times = sources = twice = None
        if self.roles.source is not None:
            sources = tuple(cell.strip() for cell in columns[self.roles.source])
        if self.roles.time:
            written = [self._time_of(row) for row in rows]
            try:
                times, twice = self.clock.times(written, sources, self.latest)
            except BadCell as error:
                cell = quoted([written[error.row]])
                at_start = error.row == 0 and lines[0] <= _FIRST_LINES
                hint = time_hint(self.clock, written, at_start=at_start)
                hint = ": fill it, or delete the line" if "blank" in str(error) else hint
                name = " and ".join(self.names[place] for place in self.roles.time)
                raise BadTable(
                    f"{self.file}, line {lines[error.row]}, column {name}: {cell} {error}{hint}"
                ) from None
        if sources is not None:
            self._check_sources(sources, lines)
        cells = {self.names[place]: columns[place] for place in self.kept}
        chunk = Chunk(self.file, lines, cells, rows, times, sources, self.comma, twice)
        return replace(chunk, units=self.units, words=self.words)

    def _is_time(self, cell: str) -> bool:
        try:
            self.clock.times([cell])
        except BadCell:
            return False
        return True

    def _time_of(self, cells: Sequence[str]) -> str:
        # The last rows, such as a row of sums, may have fewer cells.
        return " ".join(cells[place].strip() for place in self.roles.time if place < len(cells))

    def _check_sources(self, sources: tuple[str, ...], lines: list[int]) -> None:
        for row, source in enumerate(sources):
            if is_blank(source) or len(source.encode()) > 128:
                name = self.names[self.roles.source or 0]
                raise BadTable(
                    f"{self.file}, line {lines[row]}, column {name}: a source must have 1 to 128 "
                    "bytes"
                )
