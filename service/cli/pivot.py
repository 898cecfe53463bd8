"""Turns a table with one reading in each row into a table with a column for each thing measured."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain

import numpy as np

from models.columns import quoted
from models.context import groups
from service.cli.chunk import Chunk
from service.cli.dialect import TextTable
from service.cli.table_files import BadTable
from service.cli.text_table import Options, read

# If things are read together, a time has at least so many readings on average.
_SHARED = 1.5
# The share of the rows that must show an order: some readings may come twice, or be missing.
_MOSTLY = 0.9


def pivoted(table: TextTable, options: Options) -> tuple[TextTable, Options]:
    """Return the table with a column for each value of the column `options.pivot`, and its options.

    All rows are read. A row has the readings of one time and source. If things are read at
    different times, it has the latest readings within one step, the usual time between two readings
    of the same thing. Raises BadTable.
    """
    if options.time is None:
        raise BadTable(f"{table.file}: --pivot needs --time, the column with the time of each row")
    first = next(table.lines, (0, []))
    before = [name for name in options.drop if name in map(str.strip, first[1])]
    table = replace(table, lines=chain([first], table.lines))
    # The categories may be columns that this makes; `read` checks their names afterwards.
    long = read(table, replace(options, pivot=None, drop=tuple(before), categories=()))
    values = [name for name in long.names if name != options.pivot]
    parts = options.time_columns(long.header)
    unnamed = not set(parts) <= set(long.header)
    if unnamed or options.pivot not in long.names or len(values) != 1:
        raise BadTable(
            f"{table.file}: --pivot needs the names of columns, and one column of values beside "
            f"them; the columns to judge are {quoted(long.names)}: --drop the others"
        )
    readings = _Readings(options.pivot, values[0])
    for chunk in long.chunks:
        places = [long.header.index(part) for part in parts]
        readings.add(chunk, [" ".join(cells[at] for at in places) for cells in chunk.rows])
    lead = [options.time] if options.source is None else [options.time, options.source]
    dialect = replace(table.dialect, notes=(*table.dialect.notes, *long.notes, *readings.notes()))
    lines = chain([(1, [*lead, *readings.names])], readings.rows(sourced=len(lead) > 1))
    after = tuple(name for name in options.drop if name not in before)
    return (
        replace(table, lines=lines, dialect=dialect, named=True),
        replace(options, pivot=None, drop=after),
    )


class _Readings:
    """The readings of a file, each with its time, its source, the name of its thing and a value."""

    def __init__(self, named_by: str, value: str) -> None:
        self._named_by, self._value = named_by, value
        self._times: list[float] = []
        self._all: list[tuple[int, str, str, str, str]] = []
        self.names: dict[str, int] = {}

    def add(self, chunk: Chunk, written: Sequence[str]) -> None:
        """Add the readings of a chunk. `written` are their times as text."""
        assert chunk.times is not None
        headings = [cell.strip() for cell in chunk.cells[self._named_by]]
        sources = chunk.sources or ("",) * len(chunk)
        self._times += chunk.times.tolist()
        self._all += zip(
            chunk.lines, written, sources, headings, chunk.cells[self._value], strict=True
        )
        for heading in headings:
            self.names.setdefault(heading, len(self.names))

    @cached_property
    def step(self) -> float:
        """The seconds of one row, 0 if the things are read at the same times."""
        times = np.array(self._times)
        sources = (source for _, _, source, _, _ in self._all)
        if len(times) >= _SHARED * len(set(zip(self._times, sources, strict=True))):
            return 0.0
        things = [f"{source}\0{heading}" for _, _, source, heading, _ in self._all]
        rows_of_things = groups(things, len(times))
        gaps = np.concatenate([np.diff(np.sort(times[rows])) for rows in rows_of_things])
        return float(np.median(gaps)) if len(gaps) else 0.0

    def notes(self) -> Iterator[str]:
        """Yield what a person should know about the new table."""
        yield f"a column for each of the {len(self.names)} values of {quoted([self._named_by])}"
        if self.step:
            yield f"readings have different times: a row has the latest of each {self.step:g} s"
            return
        things = (row[2:4] for row in self._all)  # each a source and a name
        if twice := len(self._times) - len(set(zip(self._times, things, strict=True))):
            yield (
                f"{twice} readings have the time and the name of another one, and the last one is "
                "taken: if machines are mixed, give --source"
            )

    def rows(self, *, sourced: bool) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows in the order of time: the line of the last reading, and the cells."""
        step = self.step
        order = np.argsort(np.array(self._times), kind="stable")
        rows: dict[tuple[float, str], tuple[int, list[str]]] = {}
        for i in order.tolist():
            line, written, source, heading, value = self._all[i]
            key = (self._times[i] // step if step else self._times[i]), source
            lead = [written, source] if sourced else [written]
            cells = rows[key][1] if key in rows else [*lead, *[""] * len(self.names)]
            cells[0] = written
            cells[len(lead) + self.names[heading]] = value
            rows[key] = line, cells
        yield from rows.values()


def pivot_advice(chunk: Chunk, names: Sequence[str], numbers: Sequence[str]) -> str | None:
    """Return the advice to give --pivot if each row seems to have one reading, else None.

    `names` are the columns to judge, `numbers` are those of them with numbers.
    """
    words = {name: chunk.cells[name] for name in names if name not in numbers}
    values = [
        name
        for name in numbers
        if not any(_follows(chunk.cells[name], cells) for cells in words.values())
    ]
    if chunk.times is None or len(values) != 1:
        return None
    for name in sorted(words, key=lambda name: -len(set(words[name]))):
        headings = words[name]
        known = len(set(headings))
        rest = [chunk.times.tolist(), *(cells for column, cells in words.items() if column != name)]
        rest += [] if chunk.sources is None else [chunk.sources]
        if 1 < known <= len(headings) / 2 and (
            _together(headings, rest) or _in_turn(headings, known)
        ):
            return (
                f"each row seems to have one reading, {quoted(values)}, of one of {known} things, "
                f"{quoted([name])}: give --pivot {name}, which makes a column of each thing, or "
                f"--source {name} if the things are machines"
            )
    return None


def _follows(cells: Sequence[str], words: Sequence[str]) -> bool:
    """Return whether each word always comes with the same cell."""
    return len(set(zip(words, cells, strict=True))) == len(set(words))


def _together(headings: Sequence[str], rest: Sequence[Sequence[object]]) -> bool:
    """Return whether rows of different things have the same cells in all other columns."""
    others = list(zip(*rest, strict=True))
    different = len(set(zip(others, headings, strict=True)))
    return len(others) >= _SHARED * len(set(others)) and different >= _MOSTLY * len(others)


def _in_turn(headings: Sequence[str], known: int) -> bool:
    """Return whether the things come in turns: each one again after all others."""
    gaps = np.concatenate([np.diff(rows) for rows in groups(headings, len(headings))])
    return bool(len(gaps) and (abs(gaps - known) <= max(1, known / 10)).mean() >= _MOSTLY)
