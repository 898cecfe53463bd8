"""Finds features whose later values differ from all earlier ones: times, counters, new words."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FEWEST = 50  # the fewest steps from row to row that can show a counter
MOVES = 0.25  # the least share of steps in which a counter changes
# A counter that starts again at most RESTARTS times has not shown how far it counts. Most times
# that it starts again, it falls by more than the share FAR of its range.
RESTARTS, FAR = 20, 0.05
YEARS = (946_684_800.0, 2_524_608_000.0)  # the years 2000 to 2050 in seconds since 1970
UNITS = (1e3, 1e6, 1e9)  # milliseconds, microseconds and nanoseconds in a second


def is_counter(
    values: NDArray[np.floating],
    groups: Iterable[NDArray[np.intp] | slice],
    fewest: int = FEWEST,
) -> bool:
    """Return whether `values` (n,) never fall, or never rise, from row to row within each group.

    A group has the rows of one source in the order of time. NaN is a gap. Values that rarely
    change, or that make fewer than `fewest` steps, are not counters.
    """
    steps = _steps(values, groups)
    if len(steps) < fewest or (steps != 0.0).mean() <= MOVES:
        return False
    return bool((steps >= 0.0).all() or (steps <= 0.0).all())


def restarts_rarely(
    values: NDArray[np.floating], groups: Iterable[NDArray[np.intp] | slice]
) -> bool:
    """Return whether `values` (n,) rise from row to row and fall far only a few times, or reversed.

    Groups and gaps are those of `is_counter`.
    """
    steps = _steps(values, groups)
    if len(steps) < FEWEST or (steps != 0.0).mean() <= MOVES:
        return False
    if (steps < 0.0).sum() > (steps > 0.0).sum():
        steps = -steps
    back = steps[steps < 0.0]
    far = FAR * float(np.nanmax(values) - np.nanmin(values))
    return bool(
        0 < len(back) <= RESTARTS and len(back) * FEWEST <= len(steps) and np.median(-back) > far
    )


def _steps(
    values: NDArray[np.floating], groups: Iterable[NDArray[np.intp] | slice]
) -> NDArray[np.floating]:
    """Return the differences from row to row within each group, (m,)."""
    return np.concatenate(
        [np.diff(series[~np.isnan(series)]) for series in (values[rows] for rows in groups)]
    )


def are_small_units(values: NDArray[np.floating]) -> bool:
    """Return whether `values` (n,) are milli-, micro- or nanoseconds since 1970. NaN is a gap."""
    return any(_are_times(values, unit) for unit in UNITS)


def are_seconds(values: NDArray[np.floating]) -> bool:
    """Return whether `values` (n,) could be seconds since 1970. NaN is a gap."""
    return _are_times(values, 1.0)


def _are_times(values: NDArray[np.floating], unit: float) -> bool:
    """Return whether `values` (n,), `unit` to a second, are all within YEARS. NaN is a gap."""
    known = values[~np.isnan(values)].astype(np.float64)
    return bool(len(known) and known.min() >= YEARS[0] * unit and known.max() < YEARS[1] * unit)


def comes_in_stretches(values: NDArray[np.floating]) -> bool:
    """Return whether `values` (n,) are several, and none comes back after another one."""
    known = values[~np.isnan(values)]
    different = len(np.unique(known))
    return different > 1 and 1 + int((np.diff(known) != 0.0).sum()) == different
