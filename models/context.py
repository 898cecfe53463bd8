"""Context: features derived from the rows before a row, source by source.

`value` is the row itself. `deviation` is the difference between each number and its mean over the
`over` rows before it, of the same source. `calendar` is the hour of day and the day of week as
points on a circle. All features are pure functions of the rows of one request: nothing is stored
between requests.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from models.errors import ConfigError, VectorError

DERIVED = ("value", "deviation", "calendar")
FILLS = ("none", "previous", "linear")
CALENDAR = ("hour of day, sine", "hour of day, cosine", "day of week, sine", "day of week, cosine")
MOST_ROWS = 1000  # the longest context, in rows
STATES = ("scored", "warming", "context", "off", "ignored", "late")
SCORED, WARMING, CONTEXT, OFF, IGNORED, LATE = range(6)

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DAY, _WEEK = 86_400.0, 604_800.0
_OFFSETS_CHANGE = 900  # seconds: a zone changes its UTC offset only at a full quarter of an hour
_LARGEST = float(np.finfo(np.float32).max)
_MONDAY = 4 * _DAY  # seconds from 1970-01-01, a Thursday, to the first Monday


def seconds(duration: str) -> float:
    """Return a duration such as `90s`, `1m`, `2h` or `1.5d` in seconds, or raise ConfigError.

    >>> seconds("1.5h")
    5400.0
    """
    parts = _DURATION.fullmatch(duration)
    value = float(parts[1]) * _UNITS[parts[2]] if parts else 0.0
    if value <= 0:
        raise ConfigError("a duration is a number above 0 and one of s, m, h, d")
    return value


@dataclass(frozen=True, slots=True)
class Context:
    """Which features are derived, and from how many earlier rows.

    `every` is the interval between rows, such as `1m`. The earlier rows are then those of the last
    `over` ticks of that clock. `fill` says what happens at a tick without a row: `none` starts the
    context again, `previous` repeats the row before, `linear` interpolates between the rows around
    it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    over: int = 10
    every: str | None = None
    fill: str = "none"
    derive: tuple[str, ...] = ("value", "deviation")
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        object.__setattr__(self, "derive", tuple(self.derive))
        if isinstance(self.over, bool) or not 1 <= self.over <= MOST_ROWS:
            raise ConfigError(f"context.over: give a number of rows from 1 to {MOST_ROWS}")
        if self.every is not None:
            try:
                seconds(self.every)
            except ConfigError as error:
                raise ConfigError(f"context.every: {error}") from None
        if self.fill not in FILLS:
            raise ConfigError(f"context.fill: choose one of {', '.join(FILLS)}")
        if self.fill != "none" and self.every is None:
            raise ConfigError("context.fill: it needs `every`, the interval between rows")
        if unknown := [name for name in self.derive if name not in DERIVED]:
            raise ConfigError(
                f"context.derive: {len(unknown)} unknown; choose from {', '.join(DERIVED)}"
            )
        if len(set(self.derive)) < len(self.derive):
            raise ConfigError("context.derive: name each at most once")
        if not {"value", "deviation"} & set(self.derive):
            raise ConfigError("context.derive: name at least one of value, deviation")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError("context.timezone: give an IANA time zone, such as UTC") from None

    @property
    def needs_times(self) -> bool:
        """Whether features can be derived only from rows with timestamps."""
        return self.every is not None or "calendar" in self.derive

    @property
    def needs_rows(self) -> int:
        """How many rows before a row (with `every`: ticks) are needed to judge it."""
        return self.over if "deviation" in self.derive else 0

    def width(self, numbers: NDArray[np.bool_]) -> int:
        """Return the number of features of d columns; `numbers` (d,) is the mask of numbers."""
        return len(self.origins(numbers))

    def origins(self, numbers: NDArray[np.bool_]) -> list[tuple[int, str]]:
        """Return the column and the kind of each derived feature; the calendar's have column -1.

        A column that is not a number gives its value alone.
        """
        origins = [
            (j, "value") for j, number in enumerate(numbers) if "value" in self.derive or not number
        ]
        if "deviation" in self.derive:
            origins += [(j, "deviation") for j, number in enumerate(numbers) if number]
        if "calendar" in self.derive:
            origins += [(-1, name) for name in CALENDAR]
        return origins

    def owners(self, numbers: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the column of each derived feature; the calendar's features have column d."""
        columns = np.array([column for column, _ in self.origins(numbers)], np.intp)
        return np.where(columns < 0, len(numbers), columns)

    def columns_in(self, width: int) -> int:
        """Return how many columns, all of them numbers, give `width` features."""
        times = len({"value", "deviation"} & set(self.derive))
        calendar = len(CALENDAR) if "calendar" in self.derive else 0
        columns, left = divmod(width - calendar, times)
        if left or columns < 1:
            raise VectorError(f"vectors: {width} features are not derived by this context")
        return columns


class Derived(NamedTuple):
    """Features (n, w) float32 of n rows, and the state of each row (n,): an index into STATES."""

    features: NDArray[np.float32]
    states: NDArray[np.uint8]


def derive(  # noqa: PLR0913 - what a request says of its rows
    context: Context,
    X: NDArray[Any],
    numbers: NDArray[np.bool_] | None = None,
    *,
    times: NDArray[np.float64] | None = None,
    sources: Sequence[str] | None = None,
    context_rows: int = 0,
    left_out: NDArray[np.bool_] | None = None,
) -> Derived:
    """Derive the features of rows X (n, d), in which NaN marks a missing value.

    `numbers` (d,) marks the columns that are numbers; None means all columns. `times` (n,) are in
    seconds since 1970; `sources` (n,) name the source of each row. The first `context_rows` rows of
    each source only serve as context. Rows marked in `left_out` (n,) are `off` and are not context
    of other rows. A row that is not newer than the row before it is `late`. A row with too few rows
    before it is `warming`. All other rows are `scored`.

    >>> one = derive(Context(over=2), np.float32([[1], [3], [5]]))
    >>> one.features[2], [STATES[state] for state in one.states]
    (array([5., 3.], dtype=float32), ['warming', 'warming', 'scored'])
    """
    X = np.asarray(X, np.float32)
    n, d = X.shape
    numbers = np.ones(d, bool) if numbers is None else numbers
    if times is None and context.needs_times:
        raise VectorError("timestamps: the detector's context needs one for each row")
    states = np.full(n, SCORED, np.uint8)
    deviations = np.zeros((n, int(numbers.sum())), np.float32)
    for rows in groups(sources, n):
        late = _late(times, rows)
        states[rows[late]] = LATE
        if left_out is not None:
            states[rows[left_out[rows] & ~late]] = OFF
        usable = rows[states[rows] == SCORED]
        if context.needs_rows and len(usable):
            part, full = _deviations(
                context, X[np.ix_(usable, numbers)], None if times is None else times[usable]
            )
            deviations[usable[full]] = part[full]
            states[usable[~full]] = WARMING
        states[rows[:context_rows]] = CONTEXT
    parts = [X if "value" in context.derive else X[:, ~numbers]]
    if context.needs_rows:
        parts.append(deviations)
    if "calendar" in context.derive and times is not None:
        parts.append(_calendar(times, context.timezone))
    return Derived(np.concatenate(parts, axis=1, dtype=np.float32), states)


def groups(sources: Sequence[str] | None, n: int) -> Iterator[NDArray[np.intp]]:
    """Yield the row indices of each source, in order."""
    if sources is None:
        yield np.arange(n)
        return
    _, numbers = np.unique(np.asarray(sources, dtype=object), return_inverse=True)
    by_source = np.argsort(numbers, kind="stable")
    yield from np.split(by_source, np.flatnonzero(np.diff(numbers[by_source])) + 1)


def _late(times: NDArray[np.float64] | None, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which `rows` (r,) of a source are not newer than a row before them, (r,)."""
    late = np.zeros(len(rows), bool)
    if times is not None:
        source_times = times[rows]
        late[1:] = source_times[1:] <= np.maximum.accumulate(source_times)[:-1]
    return late


def _deviations(
    context: Context, X: NDArray[np.float32], times: NDArray[np.float64] | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the deviations of rows X (m, k) of one source, and which rows have a full context.

    Missing values do not enter a mean. The deviation is NaN if all values of a mean are missing.
    """
    seen = ~np.isnan(X)
    wide = np.where(seen, X, 0.0).astype(np.float64)
    if context.every is None or times is None:
        sums, counts, full = _rows_before(wide, seen, context.over)
    else:
        sums, counts, full = _ticks_before(context, wide, seen, times)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = np.where(seen, wide, np.nan) - sums / counts
    return np.clip(deviations, -_LARGEST, _LARGEST).astype(np.float32), full


_Sums = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def _rows_before(wide: NDArray[np.float64], seen: NDArray[np.bool_], over: int) -> _Sums:
    """Return sums and counts (m, k) of the `over` rows before each row, and which are full (m,).

    A row is full if it has `over` rows before it. A running sum would accumulate rounding errors.
    """
    m, k = wide.shape
    padding = np.zeros((over, k))
    sums, counts = (
        np.lib.stride_tricks.sliding_window_view(
            np.concatenate([padding, part[:-1]]), over, axis=0
        ).sum(axis=-1, dtype=np.float64)
        for part in (wide, seen)
    )
    return sums, counts, np.arange(m) >= over


def _ticks_before(
    context: Context, wide: NDArray[np.float64], seen: NDArray[np.bool_], times: NDArray[np.float64]
) -> _Sums:
    """Return the sums of `_rows_before` for the rows at the `over` ticks before each row.

    The context's `fill` says which values a tick without a row has.
    """
    m, _ = wide.shape
    step = seconds(context.every or "")
    rows = np.arange(m)
    sums, counts = np.zeros_like(wide), np.zeros_like(wide)
    full = np.ones(m, bool)
    for tick in range(1, context.over + 1):
        at = times - tick * step
        if context.fill == "none":
            place = np.searchsorted(times, at + step / 2, "right") - 1
            place = np.minimum(place, rows - 1)
            there = (place >= 0) & (times[place] > at - step / 2)
        else:
            place = np.searchsorted(times, at, "right") - 1
            there = (place >= 0) & (at - times[place] <= context.over * step)
        place = np.maximum(place, 0)
        values, observed = wide[place], seen[place].astype(np.float64)
        if context.fill == "linear":
            after = np.minimum(place + 1, rows)
            span = times[after] - times[place]
            share = np.divide(at - times[place], span, out=np.zeros(m), where=span > 0)[:, None]
            both = seen[place] & seen[after]
            values = np.where(both, (1 - share) * values + share * wide[after], values)
        full &= there
        sums += values * there[:, None]
        counts += observed * there[:, None]
    return sums, counts, full


def _calendar(times: NDArray[np.float64], timezone: str) -> NDArray[np.float32]:
    """Return sine and cosine of the hour of day and of the day of week in `timezone`, (n, 4)."""
    local = times + _utc_offsets(times, timezone)
    day = 2 * np.pi * (local % _DAY) / _DAY
    week = 2 * np.pi * ((local - _MONDAY) % _WEEK) / _WEEK
    return np.column_stack([np.sin(day), np.cos(day), np.sin(week), np.cos(week)]).astype(
        np.float32
    )


def _utc_offsets(times: NDArray[np.float64], timezone: str) -> NDArray[np.float64]:
    """Return the UTC offset of `timezone` at each of times (n,), (n,) seconds."""
    if timezone == "UTC":
        return np.zeros(len(times))
    zone = ZoneInfo(timezone)
    quarters, quarter_of = np.unique(times // _OFFSETS_CHANGE, return_inverse=True)
    offsets = []
    for quarter in quarters.tolist():
        offset = datetime.fromtimestamp(quarter * _OFFSETS_CHANGE, UTC).astimezone(zone).utcoffset()
        offsets.append(offset.total_seconds() if offset else 0.0)
    return np.array(offsets)[quarter_of]
