"""Stray values in a first experience: sentinels, spikes and wrong units, far from all others.

A few of them would decide the scale of a feature, and the threshold. A gap separates them from a
long tail: a tail gets thinner, but has no gap in which the distance from the middle grows fivefold.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array

REACH = 20.0  # a stray is at least this many ranges of the middle half away from the median
GAP = 5.0  # a stray is at least this many times as far as the next nearer value
MOST = 0.06  # the largest share of rows: more rows are a regime


class StrayValues(NamedTuple):
    """A mask (n,) of the rows with a stray value, and the columns that have some."""

    rows: NDArray[np.bool_]
    columns: list[int]


def find_strays(X: Array) -> StrayValues:
    """Return the stray values among the first normals X (n, d).

    >>> X = np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    >>> X[7] = -9999
    >>> find_strays(X).rows.sum(), find_strays(X).columns
    (np.int64(1), [0])
    """
    rows = np.zeros(len(X), bool)
    columns: list[int] = []
    least, low, middle, high, most = np.quantile(X, (0.1, 0.25, 0.5, 0.75, 0.9), axis=0)
    width = np.where(high > low, high - low, most - least)
    reach = np.maximum(X.max(axis=0) - middle, middle - X.min(axis=0))
    for j in np.flatnonzero((width > 0.0) & (reach > REACH * width)):
        distance = np.abs(X[:, j] - middle[j]) / width[j]
        ordered = np.sort(distance)
        before = np.maximum(ordered[:-1], 1.0)
        apart = (ordered[1:] > REACH) & (ordered[1:] >= GAP * before)
        apart[: int((1.0 - MOST) * len(X)) - 1] = False
        if not apart.any():
            continue
        strays = distance >= ordered[1:][apart.argmax()]
        columns.append(int(j))
        rows |= strays
    return StrayValues(rows, columns)
