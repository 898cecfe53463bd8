"""Chooses a context for rows in time from their autocorrelation, clock and daily season."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import Context, groups, seconds

LEAST_ROWS = 32  # a training needs at least this many rows with a full context
_LENGTHS = (10, 3)  # the lengths to choose from, in rows; 30 rows would hide a short fault
# Below this correlation with the row before, a context does not help. At correlations between 0.15
# and 0.3 a context helped in 11 of 15 series of NAB and SKAB.
_LEAST_CORRELATION = 0.15
_DEVIATIONS = 2.6  # the correlation must be this many standard errors above 0
_SEASON_DAYS = 14  # two weeks: each day of the week occurs twice
# A calendar is added if the hours of earlier days predict this share of the later days' variance.
_LEAST_PREDICTED = 0.1
_LEAST_ON_TICK = 0.9  # rows keep a clock if at least this share of their steps is one tick
_TICKS = (
    "1s", "2s", "5s", "10s", "15s", "20s", "30s", "1m", "2m", "3m", "5m", "10m", "15m", "20m",
    "30m", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d",
)  # fmt: skip
# A clock is chosen if at most this share of the rows comes too soon after a gap to be judged.
_MOST_AFTER_GAPS = 0.25

Rows = NDArray[np.float32]
Times = NDArray[np.float64]
Hours = NDArray[np.intp]
RowsOfSources = Sequence[NDArray[np.intp]]  # the indices of the rows of each source


def choose(
    X: Rows, times: Times | None, sources: Sequence[str] | None, timezone: str = "UTC"
) -> tuple[Context | None, str]:
    """Return a context for numbers X (n, d), or None, and the reason; NaN marks a missing value.

    `times` (n,) are in seconds since 1970 and rise within each source.
    """
    if times is None:
        return None, "no context: the rows came without timestamps"
    by_source = list(groups(sources, len(X)))
    correlation = _autocorrelation(X, by_source)
    if correlation < max(_LEAST_CORRELATION, _DEVIATIONS / np.sqrt(len(X))):
        return None, f"no context: a row and the one before correlate by {correlation:.2f} only"
    over = next((n for n in _LENGTHS if _enough_rows(n, by_source)), None)
    if over is None:
        return None, "no context: the rows of each source are too few to have rows before them"
    why = (
        f"each number's deviation from the {over} rows before it, since a row and the one before "
        f"correlate by {correlation:.2f}"
    )
    derive: tuple[str, ...] = ("value", "deviation")
    every = _clock(times, by_source, over)
    if every is not None:
        why += f"; rows come every {every}, and the context starts again after a gap of {over}"
    share = _daily_season(X, times, by_source)
    if share >= _LEAST_PREDICTED:
        derive = (*derive, "calendar")
        why += f"; hour and day, since the hour explains {share:.0%} of the variance of later days"
    fill = "none" if every is None else "previous"
    return Context(over, every, fill, derive, timezone), f"context: {why}"


def _enough_rows(over: int, by_source: RowsOfSources) -> bool:
    """Return whether enough rows, and at least half of all, have `over` rows before them."""
    with_context = sum(max(0, len(rows) - over) for rows in by_source)
    return with_context >= max(LEAST_ROWS, sum(map(len, by_source)) / 2)


def _autocorrelation(X: Rows, by_source: RowsOfSources) -> float:
    """Return the median correlation of a number with its previous value; 0 if it is unknown."""
    return _median(_correlation(X[rows, j]) for rows in by_source for j in range(X.shape[1]))


def _median(values: Iterable[float]) -> float:
    """Return the median of the values that are not NaN; 0 if there are none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else 0.0


def _correlation(values: NDArray[Any]) -> float:
    """Return the correlation of values (n,) with the value before; NaN if it is undefined."""
    before, after = values[:-1].astype(np.float64), values[1:].astype(np.float64)
    both = np.isfinite(before) & np.isfinite(after)
    before, after = before[both], after[both]
    if len(before) < 10 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return float("nan")
    return float(np.corrcoef(before, after)[0, 1])


def _clock(times: Times, by_source: RowsOfSources, over: int) -> str | None:
    """Return the tick of a clock that all sources keep, with gaps; None without such a clock.

    With a clock, the context of `over` rows starts again after a gap, and the first rows after it
    are not judged. So the result is also None if gaps are many: an hourly log of office hours would
    have no judged row.
    """
    steps = np.concatenate([np.diff(times[rows]) for rows in by_source])
    if not len(steps) or (median := float(np.median(steps))) <= 0:
        return None
    tick = min(_TICKS, key=lambda name: abs(seconds(name) - median))
    step = seconds(tick)
    on_tick = float((np.abs(steps - step) <= step / 10).mean())
    if on_tick < _LEAST_ON_TICK or not (steps > 1.5 * step).any():
        return None
    runs = [
        len(run)
        for rows in by_source
        for run in np.split(rows, 1 + np.flatnonzero(np.diff(times[rows]) > over * step))
    ]
    return tick if np.minimum(runs, over).sum() <= _MOST_AFTER_GAPS * len(times) else None


def _daily_season(X: Rows, times: Times, by_source: RowsOfSources) -> float:
    """Return the median share of the later half's variance that the earlier half's hours predict.

    It is 0 if the rows span less than two weeks.
    """
    if np.ptp(times) < _SEASON_DAYS * 86_400:
        return 0.0
    hours = (times // 3600 % 24).astype(np.intp)
    shares = []
    for rows in by_source:
        early, late = np.array_split(rows, 2)
        shares += [
            _predicted_share(X[early, j], hours[early], X[late, j], hours[late])
            for j in range(X.shape[1])
        ]
    return _median(shares)


def _predicted_share(
    early: NDArray[Any], early_hours: Hours, late: NDArray[Any], late_hours: Hours
) -> float:
    """Return the share of the variance of `late` (m,) that the hourly means of `early` predict.

    It is NaN if it is undefined.
    """
    known = np.isfinite(early)
    early, early_hours = early[known].astype(np.float64), early_hours[known]
    known = np.isfinite(late)
    late, late_hours = late[known].astype(np.float64), late_hours[known]
    counts = np.bincount(early_hours, minlength=24)
    if not len(late) or np.ptp(late) == 0 or (counts[np.unique(late_hours)] < 2).any():
        return float("nan")
    means = np.bincount(early_hours, early, minlength=24) / np.maximum(counts, 1)
    # Only the shape of the day counts, so each half is centred: a level shift is not a season.
    predicted = means[late_hours] - means[late_hours].mean()
    return 1.0 - float(((late - late.mean()) - predicted).var() / late.var())
