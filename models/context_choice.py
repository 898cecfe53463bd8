"""Chooses a context for rows in time from their autocorrelation, clock and daily season."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import Context, groups, seconds

LEAST_ROWS = 32  # the fewest rows with a full context that a training needs
# a fault of a few rows stands out from a context of 10; a context of 30 hides it more
_OVERS = (10, 3)
_ALIKE = 0.3  # below this correlation with the row before, a context does not help
_SEASON_DAYS = 14  # two weeks: each day of the week occurs twice
# a calendar needs at least this share of later days' variance predicted by earlier hours
_SEASON = 0.1
_KEEPS = 0.9  # rows keep a clock if at least this share of their steps is one tick
_TICKS = ("1s", "10s", "30s", "1m", "5m", "10m", "15m", "30m", "1h", "1d")

Rows = NDArray[np.float32]
Times = NDArray[np.float64]


def choose(
    X: Rows, times: Times | None, sources: Sequence[str] | None, timezone: str = "UTC"
) -> tuple[Context | None, str]:
    """Return a context for numbers X (n, d), or None, and the reason; NaN marks a missing value.

    `times` (n,) are in seconds since 1970 and rise within each source.
    """
    if times is None:
        return None, "no context: the rows came without timestamps"
    rows = list(groups(sources, len(X)))
    middle = _alike(X, rows)
    if middle < _ALIKE:
        return None, f"no context: a row and the one before correlate by {middle:.2f} only"
    over = next((n for n in _OVERS if _enough(n, rows)), None)
    if over is None:
        return None, "no context: the rows of each source are too few to have rows before them"
    why = (
        f"each number's deviation from the {over} rows before it, since a row and the one before "
        f"correlate by {middle:.2f}"
    )
    derive: tuple[str, ...] = ("value", "deviation")
    every = _clock(times, rows)
    if every is not None:
        why += f"; rows come every {every}, and the context starts again after a gap of {over}"
    share = _season(X, times, rows)
    if share >= _SEASON:
        derive = (*derive, "calendar")
        why += f"; hour and day, since the hour explains {share:.0%} of the variance of later days"
    fill = "none" if every is None else "previous"
    return Context(over, every, fill, derive, timezone), f"context: {why}"


def _enough(over: int, rows: list[NDArray[np.intp]]) -> bool:
    """Return whether enough rows, and at least half of all, have `over` rows before them."""
    whole = sum(max(0, len(one) - over) for one in rows)
    return whole >= max(LEAST_ROWS, sum(map(len, rows)) / 2)


def _alike(X: Rows, rows: list[NDArray[np.intp]]) -> float:
    """Return the median correlation of a number with its previous value; 0 if there is none."""
    found = [_correlation(X[one, j]) for one in rows for j in range(X.shape[1])]
    known = [one for one in found if np.isfinite(one)]
    return float(np.median(known)) if known else 0.0


def _correlation(values: NDArray[Any]) -> float:
    before, after = values[:-1].astype(np.float64), values[1:].astype(np.float64)
    both = np.isfinite(before) & np.isfinite(after)
    before, after = before[both], after[both]
    if len(before) < 10 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return float("nan")
    return float(np.corrcoef(before, after)[0, 1])


def _clock(times: Times, rows: list[NDArray[np.intp]]) -> str | None:
    """Return the tick of a clock that all sources keep, with gaps; None without such a clock."""
    steps = np.concatenate([np.diff(times[one]) for one in rows])
    if not len(steps) or (middle := float(np.median(steps))) <= 0:
        return None
    tick = min(_TICKS, key=lambda one: abs(seconds(one) - middle))
    step = seconds(tick)
    kept = float((np.abs(steps - step) <= step / 10).mean())
    return tick if kept >= _KEEPS and (steps > 1.5 * step).any() else None


def _season(X: Rows, times: Times, rows: list[NDArray[np.intp]]) -> float:
    """Return the median share of the later half's variance that the earlier half's hours predict.

    It is 0 if the rows span less than two weeks.
    """
    if np.ptp(times) < _SEASON_DAYS * 86_400:
        return 0.0
    hours = (times // 3600 % 24).astype(np.intp)
    found = []
    for one in rows:
        early, late = np.array_split(one, 2)
        found += [
            _predicted_share(X[early, j], hours[early], X[late, j], hours[late])
            for j in range(X.shape[1])
        ]
    known = [share for share in found if np.isfinite(share)]
    return float(np.median(known)) if known else 0.0


def _predicted_share(
    before: NDArray[Any], hours: NDArray[np.intp], after: NDArray[Any], later: NDArray[np.intp]
) -> float:
    there, then = np.isfinite(before), np.isfinite(after)
    before, hours = before[there].astype(np.float64), hours[there]
    after, later = after[then].astype(np.float64), later[then]
    counts = np.bincount(hours, minlength=24)
    if not len(after) or np.ptp(after) == 0 or (counts[np.unique(later)] < 2).any():
        return float("nan")
    means = np.bincount(hours, before, minlength=24) / np.maximum(counts, 1)
    # Only the shape of the day counts, so each half is centred: a level shift is not a season.
    apart = (after - after.mean()) - (means[later] - means[later].mean())
    return 1.0 - float(apart.var() / after.var())
