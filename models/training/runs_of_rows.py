"""Divides rows into folds of contiguous runs, because rows in time are like their neighbours."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.training.held_out import EqualRows

RUNS = 5  # contiguous runs of rows in each fold
LONG_RUNS = 2  # the same if rows change slowly
# Rows change slowly if the distance of rows at a lag, a quarter of a run, is below this share of
# the distance at 2.5 times the lag.
SLOW = 0.7
HELD = 0.5  # rows hold the last values if more than this share of them equals the row before
# Rows do not depend on earlier rows if these two distances differ by less than this ratio, and so
# do those at shorter lags. Then shorter runs are enough.
ALIKE = 0.95
# A jump is a step between the means of STEADY rows: it is more than JUMP times the median of all
# steps, and more than the share APART of the mean distance between rows.
STEADY, JUMP, APART = 25, 10.0, 0.1
SEEN = 0.1  # rows at a lag are compared if at least this share has such a row in its regime
SHORTEST = 100  # rows in a shortened run, so that it holds the windows that count false incidents

Ints = NDArray[np.int64]


def folds_of_runs(x: Array, folds: int, rng: np.random.Generator) -> Ints:
    """Return the fold 0..folds-1 of each row of x (n, d): a few contiguous runs of rows per fold.

    Neighbours in time are alike. In folds drawn row by row, each held-out row would have a near
    copy among the learned rows, and the threshold would be too low. Equal rows go into one fold for
    the same reason. Common values (`EqualRows.common`) do not: such a value will come again, and a
    network that never saw it would score it too high.

    No fold holds out a whole regime: its runs lie in different parts of the rows, and a short
    regime in time has runs of every fold.
    """
    n = len(x)
    runs, regime = _runs(x, folds)
    copies = EqualRows.find(x)
    # A common row keeps its own place; other equal rows take the place of the first of them.
    place = np.where(copies.common, np.arange(n), copies.first)
    order = np.argsort(place, kind="stable")
    starts = np.r_[True, np.diff(place[order]) > 0]
    start = np.flatnonzero(starts)[np.cumsum(starts) - 1]  # of the row's equal rows
    _, first, regime, size = np.unique(
        regime[place[order]], return_index=True, return_inverse=True, return_counts=True
    )
    # Each regime has runs of every fold.
    times = np.maximum(1, np.round(runs * size / n).astype(np.int64))
    run = np.empty(n, np.int64)
    run[order] = (start - first[regime]) * (times * folds)[regime] // size[regime]
    run[order] += ((times.cumsum() - times) * folds)[regime]
    fold_of_run = np.concatenate([rng.permutation(folds) for _ in range(times.sum())])
    return fold_of_run[run]


def _runs(x: Array, folds: int) -> tuple[int, Ints]:
    """Return the number of runs of each fold of x (n, d), and the regime of each row, (n,).

    A held-out row lies on average a quarter of a run away from the learned rows. If it is still
    like them there, the runs are too short. A run that is longer than needed can hold out a whole
    regime, and the threshold would be too high for later rows of that regime. All rows that change
    slowly count as one regime, because a stretch between two jumps may not come again.
    """
    regime = _regimes_in_time(x)
    distance = partial(_distance, x, regime)
    near, far = _near_and_far(x, folds, distance)
    if near < ALIKE * far:
        return LONG_RUNS if near < SLOW * far else RUNS, np.zeros_like(regime)
    runs = RUNS
    while len(x) >= 2 * SHORTEST * runs * folds:
        # The comparison is false if the distance is NaN, because regimes are shorter than this lag.
        if distance(len(x) // (8 * runs * folds)) <= ALIKE * near:
            break
        runs *= 2
    # Only a regime that a run could hold out as a whole has runs of its own, and only if its rows
    # are not like each other a quarter of such a run apart.
    sizes = np.bincount(regime)
    lags = np.maximum(1, sizes // (4 * folds))
    own = sizes <= len(x) / (runs * folds)
    alike = [lag for lag in np.unique(lags[own]).tolist() if distance(lag) <= ALIKE * near]
    own &= ~np.isin(lags, alike)
    return runs, np.cumsum(np.diff(np.where(own[regime], regime + 1, 0), prepend=0) != 0)


def depend_on_earlier(x: Array, folds: int) -> bool:
    """Return whether the rows of x (n, d) are like those before them, even a run of a fold apart.

    So are rows that change slowly, and rows of which most hold the last values. A common value, to
    which rows come back, does not count as held.
    """
    near, far = _near_and_far(x, folds, partial(_distance, x, _regimes_in_time(x)))
    held = (x[1:] == x[:-1]).all(axis=1)
    if held.mean() > HELD:
        held &= ~EqualRows.find(x).common[1:]
    return near < SLOW * far or bool(held.mean() > HELD)


def _near_and_far(x: Array, folds: int, distance: Callable[[int], float]) -> tuple[float, float]:
    """Return the `distance` of rows of x (n, d) at a quarter of a run, and at 2.5 times as far."""
    quarter = max(1, len(x) // (4 * RUNS * folds))
    return distance(quarter), distance(5 * quarter // 2)


def _distance(x: Array, regime: Ints, lag: int) -> float:
    """Return the median squared distance of rows at this lag in one regime; NaN if few are."""
    first = np.flatnonzero(regime[lag:] == regime[:-lag])
    squares = np.square(x[first + lag] - x[first]).sum(axis=1)
    return float(np.median(squares)) if len(first) >= SEEN * len(x) else math.nan


def _regimes_in_time(x: Array) -> Ints:
    """Return for each row of x (n, d) the number of its stretch between two jumps, (n,)."""
    blocks = np.arange(len(x)) // STEADY
    means = np.add.reduceat(x, np.arange(0, len(x), STEADY)) / np.bincount(blocks)[:, None]
    steps = np.square(np.diff(means, axis=0)).sum(axis=1)
    least = APART * 2.0 * x.var(axis=0).sum()
    jumps = steps > max(least, JUMP * np.median(steps)) if len(steps) else np.zeros(0, bool)
    return np.r_[0, np.cumsum(jumps)][blocks]
