"""Finds the line where the table of a text file begins, and its delimiter."""

import csv
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from models.columns import quoted
from service.domain.cells import is_number

JOINED = "\v"  # between the lines of a row; a newline would end the row
_LEAST_BELOW = 2  # rows below a row of units
DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}


class TableStart(NamedTuple):
    """The first lines of a table from its header on, without blank lines.

    `skipped` is the number of lines before the header, `units` the number of lines after it that
    have units instead of values. `header` has the names of the columns if they are in two lines,
    such as a machine above what is measured; otherwise it is empty. `notes` are for people.
    """

    lines: Sequence[str]
    delimiter: str
    skipped: int
    units: int
    header: list[str]
    notes: tuple[str, ...]


def find_table(lines: Sequence[str]) -> TableStart:
    """Find the header in the first lines of a file. It may follow `sep=;`, comments and a title."""
    named, at = None, 0
    if lines and lines[0].lower().startswith("sep=") and lines[0][4:5] in DELIMITERS:
        named, at = lines[0][4], 1
    first = _after_comments(lines, at)
    delimiter = named or _delimiter([line for line in lines[first:] if line.strip()])
    first = _after_title(lines, first, delimiter)
    rest = [line for line in lines[first:] if line.strip()]
    before = [line for line in lines[at:first] if line.strip()]
    notes = [f"{len(before)} lines before the header: skipped"] if before else []
    rows = list(csv.reader(rest, delimiter=delimiter))
    units = 0
    while named_units := _units(rows[units + 1 :]):
        units += 1
        notes.append(f"the line below the header has units, {quoted(named_units)}: skipped")
    header = _joined(rows[0], rows[1]) if units else []
    if header:
        notes[-units] = f"the header has two lines: {quoted(header)}"
    skipped = sum(1 + line.count(JOINED) for line in lines[:first])
    return TableStart(rest, delimiter, skipped, units, header, tuple(notes))


def _joined(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Return the names of columns in two lines, [] if the first line has a name for each column.

    A name of the first line holds for the columns without one to its right.

    >>> _joined(["at", "pump", ""], ["", "speed", "flow"]), _joined(["at", "flow"], ["", "l/s"])
    (['at', 'pump speed', 'pump flow'], [])
    """
    above = [" ".join(name.split()) for name in first]
    twice = {name for name, times in Counter(above).items() if times > 1 or not name}
    below = [name.strip() for name in second] + [""] * len(above)
    if not any(name in twice and below[i] for i, name in enumerate(above)):
        return []
    for i in range(1, len(above)):
        if below[i] and not above[i]:
            above[i] = above[i - 1]
    return [f"{name} {below[i]}".strip() for i, name in enumerate(above)]


def _units(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the cells of the first row that stand above numbers if it has units, else [].

    Such a row has no number, and none of its cells occurs again in its column.
    """
    if len(rows) <= _LEAST_BELOW or any(map(_is_number, rows[0])):
        return []
    units = []
    for column, cell in enumerate(rows[0]):
        below = [row[column] for row in rows[1:] if column < len(row) and row[column].strip()]
        if cell.strip() and 2 * sum(map(_is_number, below)) > len(below):
            if cell in below:
                return []
            units.append(cell.strip())
    return units


def _is_number(cell: str) -> bool:
    return is_number(cell) or is_number(cell, comma=True)


def _after_comments(lines: Sequence[str], at: int) -> int:
    """Return the index of the first line that is not a comment.

    If the last comment is the header, its index is returned.
    """
    end = at
    while end < len(lines) and (lines[end].startswith("#") or not lines[end].strip()):
        end += 1
    if end == len(lines) or not any(line.startswith("#") for line in lines[at:end]):
        return at
    last = max(i for i in range(at, end) if lines[i].startswith("#"))
    for delimiter in DELIMITERS:
        header, row = next(csv.reader([lines[last]], delimiter=delimiter)), lines[end]
        cells = next(csv.reader([row], delimiter=delimiter))
        if len(header) == len(cells) > 1 and any(map(is_number, cells)):
            return last
    return end


def _after_title(lines: Sequence[str], at: int, delimiter: str) -> int:
    """Return the index of the first line with about as many cells as most lines, else `at`.

    Lines of a title that a spreadsheet filled up with delimiters are skipped, too. A header may
    have one cell less than its rows: rows may begin with an index, or end with a delimiter.
    """
    widths = [len(next(csv.reader([line], delimiter=delimiter), [])) for line in lines[at:]]
    width, times = Counter(widths).most_common(1)[0] if widths else (0, 0)
    if times < 2 or width < 2:
        return at
    at += next(i for i, cells in enumerate(widths) if cells >= max(2, width - 1))
    return at + _padded_title(
        [next(csv.reader([line], delimiter=delimiter)) for line in lines[at:]]
    )


def _padded_title(rows: Sequence[Sequence[str]]) -> int:
    """Return how many of the first rows are a title: they are blank but for one or two cells.

    Such rows are followed by a header, of which more than half is filled, maybe with a line of
    groups above it.

    >>> _padded_title([["Plant", "", "", ""], ["", "pump", "", ""], ["at", "speed", "flow", "lag"]])
    1
    """
    filled = [[i for i, cell in enumerate(row) if cell.strip()] for row in rows]
    header = next((i for i, row in enumerate(rows) if 2 * len(filled[i]) > len(row)), 0)
    if not header or len(rows[header]) <= _LEAST_BELOW or any(map(_is_number, rows[header])):
        return 0
    above = filled[header - 1]
    is_title = above in ([], [0], [0, 1])  # a line, or a name and its value
    return header if is_title else header - 1


def _delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter that splits most lines into equally many cells.

    If none does, it is the one that splits the first line into the most cells.
    """
    widths = {
        delimiter: [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        for delimiter in DELIMITERS
    }
    if all(is_number(line, comma=True) for line in lines[1:]) and widths[","][:1] == [1]:
        return ";"  # one column of numbers with decimal commas below its name
    for delimiter, counts in widths.items():
        width, times = Counter(counts).most_common(1)[0] if counts else (1, 0)
        if width > 1 and times >= 0.9 * len(counts) and (counts[0] > 1 or times > 2):
            return delimiter
    if not any(max(counts, default=0) > 1 for counts in widths.values()):
        return ";"
    return max(
        widths,
        key=lambda delimiter: (widths[delimiter][0], sum(width > 1 for width in widths[delimiter])),
    )
