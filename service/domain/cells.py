"""Reads the cells of a text table as numbers, flags, words, blanks and times."""

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.categories import LONGEST_WORD
from service.domain.months import in_english
from service.domain.words import SEEN
from service.timestamps import EARLIEST, LATEST, moment

BLANKS = frozenset(
    {"", "na", "n/a", "n.a.", "k.a.", "nan", "nat", "<na>", "none", "null", "-", "--", "---", "?"}
    | {"nil", "(null)", "\\n", "no data", "nodata"}
    | {"#n/a", "#value!", "#div/0!", "#ref!", "#num!", "#null!", "#nv"}  # of spreadsheets
)
NO_NUMBER = "is not a number"
_BEYOND = "<>\N{LESS-THAN OR EQUAL TO}\N{GREATER-THAN OR EQUAL TO}"  # a measurement beyond a limit
FLAGS = {
    "true": 1.0, "yes": 1.0, "on": 1.0, "1": 1.0, "1.0": 1.0,
    "false": 0.0, "no": 0.0, "off": 0.0, "0": 0.0, "0.0": 0.0,
}  # fmt: skip
# Larger numbers are milli-, micro- or nanoseconds since 1970: 1e11 seconds are the year 5138.
_FRACTIONS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
_COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
EXCEL = "excel"  # the format of times that are days since the end of 1899
_FROM_1899 = 25_569  # days from the first of Excel's days to 1970


class BadCell(ValueError):  # noqa: N818 - it states what is wrong
    """A cell does not fit its column.

    `row` is the row of the cell, counted from zero. The message is the rest of a sentence that
    begins with the cell: `is not a number`.
    """

    def __init__(self, row: int, predicate: str) -> None:
        super().__init__(predicate)
        self.row = row


def is_blank(cell: str) -> bool:
    """Return whether a cell stands for a missing value."""
    return cell.strip().lower() in BLANKS


def is_word(cell: str) -> bool:
    """Return whether a cell has letters and no digit, so that it is not a number with a mistake.

    >>> is_word("Sin dato"), is_word("1O.5"), is_word("inf")
    (True, False, False)
    """
    return _LETTER.search(cell) is not None and not is_number(cell)


def limit(cell: str) -> str:
    """Return the limit in a cell that says "below" or "above" a limit, any other cell unchanged.

    >>> limit("<0.05"), limit("> 200"), limit("7")
    ('0.05', '200', '7')
    """
    return cell.strip().lstrip(_BEYOND).lstrip()


def is_number(cell: str, *, comma: bool = False) -> bool:
    """Return whether a cell is a number; with `comma`, its decimal sign is a comma."""
    try:
        read(with_decimal_point(cell) if comma else cell)
    except ValueError:
        return False
    return True


def read(cell: str) -> float:
    """Return the number in a cell. Raises ValueError for other text.

    Commas, spaces or apostrophes may separate groups of three digits. A per cent sign is dropped.
    A negative number may stand in brackets, or have its sign at the end.

    >>> read("1,234.5"), read("1 234"), read("12.5 %"), read("1.5D+03"), read("(7)"), read("7-")
    (1234.5, 1234.0, 12.5, 1500.0, -7.0, -7.0)
    """
    if "_" not in cell:  # Python reads 2026_01 as a number
        try:
            return float(cell)
        except ValueError:
            pass
    text = cell.strip().replace("\N{MINUS SIGN}", "-").removesuffix("%").rstrip()
    if text.startswith("(") and text.endswith(")"):
        text = f"-{text[1:-1]}"
    elif text.endswith("-"):
        text = f"-{text[:-1]}"
    if _NUMBER.fullmatch(text) is None:
        raise ValueError("not a number")
    return float(_BETWEEN.sub("", text).replace("D", "e").replace("d", "e"))


_LETTER = re.compile(r"^[^\d]*[^\W\d_][^\d]*$")
_BETWEEN = re.compile("[, '\N{RIGHT SINGLE QUOTATION MARK}\u00a0\u2009\u202f]")
_NUMBER = re.compile(
    rf"[+-]?(\d+|\d{{1,3}}({_BETWEEN.pattern})\d{{3}}(\2\d{{3}})*)(\.\d*)?([eEdD][+-]?\d+)?"
)


def with_decimal_point(cell: str) -> str:
    """Return a number that has a decimal comma in the form with a decimal point.

    Points between thousands are removed.

    >>> with_decimal_point("1.234,5")
    '1234.5'
    """
    if "," in cell or _is_grouped(cell):
        cell = cell.replace(".", "")
    return cell.replace(",", ".")


def _is_grouped(cell: str, fewest: int = 2) -> bool:
    """Return whether all points of a number, `fewest` at least, separate thousands: 1.234.567."""
    head, *groups = cell.strip(" +-%").split(".")
    return (
        len(groups) >= fewest
        and 1 <= len(head) <= 3
        and not head.startswith("0")
        and all(len(group) == 3 and group.isdigit() for group in groups)
    )


def numbers(cells: Sequence[str], *, comma: bool = False) -> NDArray[np.float64]:
    """Return numbers (n,), NaN for a blank cell. Raises BadCell if a cell is not a number.

    `<0.05`, which a laboratory writes below its limit of detection, is 0.05.
    """
    if comma:
        points = [cell for cell in cells if "." in cell and "," not in cell and not is_blank(cell)]
        if all(_is_grouped(cell, 1) for cell in points):  # as in a column with 999 and 1.234
            cells = [cell.replace(".", "") if not is_blank(cell) else cell for cell in cells]
        cells = [with_decimal_point(cell) for cell in cells]
    try:
        parsed = np.array([float(cell) if "_" not in cell else read(cell) for cell in cells])
    except ValueError:
        parsed = np.array([_number_in(row, cell) for row, cell in enumerate(cells)])
    if (infinite := np.isinf(parsed)).any():
        raise BadCell(int(infinite.argmax()), "is not a finite number: leave the cell blank")
    return parsed


def _number_in(row: int, cell: str) -> float:
    try:
        return read(limit(cell))
    except ValueError:
        if is_blank(cell):
            return math.nan
        raise BadCell(row, NO_NUMBER) from None


def flags(cells: Sequence[str]) -> NDArray[np.float64]:
    """Return 0 or 1 for each cell (n,), NaN for a blank cell. Raises BadCell for other text."""
    parsed = np.empty(len(cells))
    for row, cell in enumerate(cells):
        value = FLAGS.get(cell.strip().lower())
        if value is None and not is_blank(cell):
            raise BadCell(row, "is not a flag (true, false, yes, no, on, off, 1, 0)")
        parsed[row] = math.nan if value is None else value
    return parsed


def words(cells: Sequence[str]) -> NDArray[np.float64]:
    """Return the codes of words (n,), NaN for an empty cell. Raises BadCell for a long word."""
    stripped = [cell.strip() for cell in cells]
    for row, word in enumerate(stripped):
        if len(word) > LONGEST_WORD:
            raise BadCell(row, f"has more than {LONGEST_WORD} characters")
    known = {word: SEEN.code(word) if word else math.nan for word in set(stripped)}
    return np.array([known[word] for word in stripped])


def typed(cells: Sequence[str], kind: str) -> NDArray[np.float64]:
    """Return the values (n,) of a column of type `kind`, NaN for a blank cell. Raises BadCell."""
    if kind == "category":
        return words(cells)
    return flags(cells) if kind == "flag" else numbers(cells)


class Latest(NamedTuple):
    """The latest time of a source in seconds since 1970, and its distance from the time before."""

    at: float
    step: float


class Times(NamedTuple):
    """Seconds since 1970, (n,), and the first row whose local time exists twice, if any."""

    seconds: NDArray[np.float64]
    twice: int | None


@dataclass(frozen=True, slots=True)
class Clock:
    """Reads times.

    `form` is a format of strptime, or `excel`: a spreadsheet's count of days. Without it, times are
    ISO 8601, digits such as 20260131 or 2026013123, or seconds, milli-, micro- or nanoseconds since
    1970. Names of months may be in several languages.

    A time without a time zone is in `zone`. When clocks are set back, the local times of one hour
    exist twice. The order of a source's rows tells which one is meant. A source's first row belongs
    to the first hour. Once a row belongs to the second hour, so do all later ones. Before that a
    row belongs to the hour that is nearer to the time at which the source's next row is expected.
    """

    form: str | None = None
    zone: tzinfo = UTC

    def times(
        self,
        cells: Sequence[str],
        sources: Sequence[str] | None = None,
        latest: dict[str, Latest] | None = None,
    ) -> Times:
        """Read times. Raises BadCell if a cell is not a time.

        `latest` has the latest time of each source before these rows; it is brought up to date.
        """
        parsed = np.empty(len(cells))
        latest = {} if latest is None else latest
        twice = None
        for row, cell in enumerate(cells):
            source = "" if sources is None else sources[row]
            try:
                parsed[row], ambiguous = self._time(cell.strip(), latest.get(source))
            except (ValueError, OverflowError):
                raise BadCell(row, "is blank" if is_blank(cell) else "is not a time") from None
            if not EARLIEST <= parsed[row] <= LATEST:
                raise BadCell(row, "is not a time between the years 1 and 9999")
            twice = row if ambiguous and twice is None else twice
            if self.zone is not UTC:
                latest[source] = _latest_of(float(parsed[row]), latest.get(source))
        return Times(parsed, twice)

    def _moment(self, cell: str) -> datetime | float:
        """Return the time or the seconds since 1970 in a cell. Raises ValueError for other text."""
        if self.form == EXCEL:
            days = timedelta(float(with_decimal_point(cell)) - _FROM_1899)
            return datetime(1970, 1, 1) + days  # noqa: DTZ001 - the zone is put in later
        if self.form is not None:
            form = self.form
            text = in_english(cell, form)
            return moment(text, self.zone, lambda text: datetime.strptime(text, form))  # noqa: DTZ007
        try:
            value = float(cell)
        except ValueError:
            return moment(cell.replace(" UTC", "+00:00"), self.zone)
        if compact := _compact(cell):
            return compact
        return value / next((per for least, per in _FRACTIONS if abs(value) > least), 1.0)

    def _time(self, cell: str, latest: Latest | None) -> tuple[float, bool]:
        """Return the time in a cell, and whether this local time exists twice."""
        at = self._moment(cell)
        if isinstance(at, float):
            return at, False
        if at.tzinfo or self.zone is UTC:
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(), False
        local = at.replace(tzinfo=self.zone)
        first, second = local.timestamp(), local.replace(fold=1).timestamp()
        if first >= second:  # if clocks are set forward, `second` is the earlier one
            return first, False
        return self._which_hour(first, second, latest), True

    def _which_hour(self, first: float, second: float, latest: Latest | None) -> float:
        """Return which of two times is meant, given the source's latest time before it."""
        if latest is None:
            return first
        set_back = _offset(latest.at, self.zone) == _offset(second, self.zone)
        if first < latest.at and set_back:
            return second
        expected = latest.at + latest.step
        return min(first, second, key=lambda hour: abs(hour - expected))


def is_compact(cell: str) -> bool:
    """Return whether a cell is a date, with or without a time, in digits alone.

    >>> is_compact("20261130"), is_compact("20261131")
    (True, False)
    """
    return _compact(cell) is not None


def _compact(cell: str) -> datetime | None:
    if cell[:2] in {"19", "20"} and cell.isdigit() and len(cell) in _COMPACT:
        with contextlib.suppress(ValueError):
            return datetime.strptime(cell, _COMPACT[len(cell)])  # noqa: DTZ007
    return None


def _offset(at: float, zone: tzinfo) -> object:
    return datetime.fromtimestamp(at, zone).utcoffset()


def _latest_of(at: float, latest: Latest | None) -> Latest:
    """Return the latest time of a source after a row at `at`."""
    if latest is None:
        return Latest(at, 0.0)
    return Latest(at, at - latest.at) if at > latest.at else latest


def indistinct(values: NDArray[np.float64]) -> bool:
    """Return whether float32 is too coarse: more than a tenth of the distinct values are lost."""
    observed = np.unique(values[np.isfinite(values)])
    with np.errstate(over="ignore"):
        rounded = np.unique(observed.astype(np.float32))
    return len(observed) > 1 and len(rounded) < 0.9 * len(observed)
