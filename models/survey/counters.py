"""Finds features that only rise or only fall, as a time or the reading of a meter does."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FEWEST = 50  # the fewest steps from row to row that can show a counter
MOVES = 0.25  # the least share of steps in which a counter changes


def is_counter(
    values: NDArray[np.floating],
    groups: Iterable[NDArray[np.intp] | slice],
    fewest: int = FEWEST,
) -> bool:
    """Return whether `values` (n,) never fall, or never rise, from row to row within each group.

    A group has the rows of one source in the order of time. NaN is a gap. Values that rarely
    change, or that make fewer than `fewest` steps, are no counter.
    """
    steps = np.concatenate(
        [np.diff(series[~np.isnan(series)]) for series in (values[rows] for rows in groups)]
    )
    if len(steps) < fewest or (steps != 0.0).mean() <= MOVES:
        return False
    return bool((steps >= 0.0).all() or (steps <= 0.0).all())
