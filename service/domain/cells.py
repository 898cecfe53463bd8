"""Cells of a text table to values: numbers, flags, blanks and times."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

import numpy as np
from numpy.typing import NDArray

from models.categories import LONGEST_WORD
from service.domain.words import SEEN

BLANKS = frozenset({"", "na", "n/a", "nan", "none", "null", "-", "#n/a", "?"})
FLAGS = {
    "true": 1.0, "yes": 1.0, "on": 1.0, "1": 1.0, "1.0": 1.0,
    "false": 0.0, "no": 0.0, "off": 0.0, "0": 0.0, "0.0": 0.0,
}  # fmt: skip
_MILLISECONDS = 1e11  # seconds since 1970 are fewer until the year 5138
_EARLIEST, _LATEST = -62_135_510_400.0, 253_402_214_400.0  # the years 1 to 9999


class BadCell(ValueError):  # noqa: N818 - it states what is wrong
    """A cell that is not what its column holds: `row` from zero, and what is wrong with it."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(what)
        self.row = row


def is_blank(cell: str) -> bool:
    """Return whether a cell stands for what was not observed."""
    return cell.strip().lower() in BLANKS


def is_number(cell: str, *, comma: bool = False) -> bool:
    """Return whether a cell is a number, with a decimal `comma` where that is the file's."""
    try:
        read(plain(cell) if comma else cell)
    except ValueError:
        return False
    return True


def read(cell: str) -> float:
    """Return the number in a cell, as people and programs write it; ValueError where it is none.

    Groups of three digits may be apart by commas, spaces or apostrophes; of `45 %` it is 45.

    >>> read("1,234.5"), read("1 234"), read("12.5 %")
    (1234.5, 1234.0, 12.5)
    """
    if "_" not in cell:  # Python takes 2026_01 for a number
        try:
            return float(cell)
        except ValueError:
            pass
    text = cell.strip().replace("\N{MINUS SIGN}", "-").removesuffix("%").rstrip()
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError("not a number")
    return float(_BETWEEN.sub("", text))


_BETWEEN = re.compile("[, '\N{RIGHT SINGLE QUOTATION MARK}\u00a0\u2009\u202f]")
_NUMBER = re.compile(
    rf"[+-]?(\d+|\d{{1,3}}({_BETWEEN.pattern})\d{{3}}(\2\d{{3}})*)(\.\d*)?([eE][+-]?\d+)?"
)


def plain(cell: str) -> str:
    """Return a number with a decimal comma, and points between thousands, as others write it.

    >>> plain("1.234,5")
    '1234.5'
    """
    if "," in cell or _grouped(cell):
        cell = cell.replace(".", "")
    return cell.replace(",", ".")


def _grouped(cell: str) -> bool:
    """Return whether all points of a number stand where thousands end: `1.234.567`."""
    head, *groups = cell.strip().lstrip("+-").split(".")
    return (
        len(groups) > 1
        and 1 <= len(head) <= 3
        and all(len(group) == 3 and group.isdigit() for group in groups)
    )


def numbers(cells: Sequence[str], *, comma: bool = False) -> NDArray[np.float64]:
    """Return numbers (n,), NaN where a cell is blank; BadCell for any other that is none."""
    if comma:
        cells = [plain(cell) for cell in cells]
    try:
        found = np.array([float(cell) if "_" not in cell else read(cell) for cell in cells])
    except ValueError:
        found = np.array([_number(row, cell) for row, cell in enumerate(cells)])
    if (infinite := np.isinf(found)).any():
        raise BadCell(int(infinite.argmax()), "not a finite number: leave it blank")
    return found


def _number(row: int, cell: str) -> float:
    try:
        return read(cell)
    except ValueError:
        if is_blank(cell):
            return math.nan
        raise BadCell(row, "not a number") from None


def flags(cells: Sequence[str]) -> NDArray[np.float64]:
    """Return 0, 1 or, where a cell is blank, NaN, (n,); BadCell for any other."""
    found = np.empty(len(cells))
    for row, cell in enumerate(cells):
        value = FLAGS.get(cell.strip().lower())
        if value is None and not is_blank(cell):
            raise BadCell(row, "not a flag (true, false, yes, no, on, off, 1, 0)")
        found[row] = math.nan if value is None else value
    return found


def words(cells: Sequence[str]) -> NDArray[np.float64]:
    """Return the codes of words (n,), NaN where a cell is empty; BadCell for one too long."""
    stripped = [cell.strip() for cell in cells]
    for row, word in enumerate(stripped):
        if len(word) > LONGEST_WORD:
            raise BadCell(row, f"a word of more than {LONGEST_WORD} characters")
    known = {word: SEEN.code(word) if word else math.nan for word in set(stripped)}
    return np.array([known[word] for word in stripped])


def typed(cells: Sequence[str], kind: str, *, comma: bool = False) -> NDArray[np.float64]:
    """Return the cells of a column of this type, (n,), NaN where one is blank; BadCell."""
    if kind == "category":
        return words(cells)
    return flags(cells) if kind == "flag" else numbers(cells, comma=comma)


@dataclass(frozen=True, slots=True)
class Clock:
    """How times are written: by `form` (as strptime has it), or ISO 8601 and seconds since 1970.

    Times that name no zone are of `zone`.
    """

    form: str | None = None
    zone: tzinfo = UTC

    def times(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """Return seconds since 1970, (n,); BadCell."""
        found = np.empty(len(cells))
        for row, cell in enumerate(cells):
            try:
                found[row] = self._time(cell.strip())
            except (ValueError, OverflowError):
                what = "a blank time" if is_blank(cell) else "not a time"
                raise BadCell(row, what) from None
            if not _EARLIEST <= found[row] <= _LATEST:
                raise BadCell(row, "not a time of the years 1 to 9999")
        return found

    def _moment(self, cell: str) -> datetime | float:
        """Return a time as it is written, or seconds since 1970; ValueError."""
        if self.form is not None:
            return datetime.strptime(cell, self.form)  # noqa: DTZ007 - the zone is put in later
        try:
            value = float(cell)
        except ValueError:
            return datetime.fromisoformat(cell)
        return value / 1000 if abs(value) > _MILLISECONDS else value

    def _time(self, cell: str) -> float:
        moment = self._moment(cell)
        if isinstance(moment, float):
            return moment
        return (moment if moment.tzinfo else moment.replace(tzinfo=self.zone)).timestamp()

    def twice(self, cells: Sequence[str]) -> int | None:
        """Return the first row whose time of day its zone has twice, None where no row is so.

        Such times are read as the earlier of the two; one that names its zone is not so.
        """
        if self.zone is UTC:
            return None
        for row, cell in enumerate(cells):
            moment = self._moment(cell.strip())
            if isinstance(moment, float) or moment.tzinfo:
                continue
            local = moment.replace(tzinfo=self.zone)
            first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
            if first is not None and second is not None and first > second:
                return row
        return None


def indistinct(values: NDArray[np.float64]) -> bool:
    """Return whether float32 makes equal what is not: at least a tenth of the steps vanish."""
    observed = np.unique(values[np.isfinite(values)])
    with np.errstate(over="ignore"):
        rounded = np.unique(observed.astype(np.float32))
    return len(observed) > 1 and len(rounded) < 0.9 * len(observed)
