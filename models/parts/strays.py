"""Values of a first experience that are far from all others: sentinels, spikes, wrong units.

A few of them would decide the scale of a feature, and the threshold. They are told from the tail
of a feature whose values do reach far by the gap before them: a tail gets thinner, but it has no
gap in which the distance from the middle grows fivefold.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array

REACH = 20.0  # ranges of the middle half, from the median: nothing nearer is astray
GAP = 5.0  # times the distance of the next nearer value
MOST = 0.06  # of the rows: more are a regime


class Strays(NamedTuple):
    """The rows with a stray value, (n,) of bool, and what was found in each such column."""

    rows: NDArray[np.bool_]
    columns: dict[int, "Column"]


class Column(NamedTuple):
    """How many values of a column are astray, and between which the others lie."""

    values: int
    low: float
    high: float


def strays(X: Array) -> Strays:
    """Return which values of the first normals X (n, d) lie apart from all others.

    >>> X = np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    >>> X[7] = -9999
    >>> strays(X).columns[0].values
    1
    """
    rows = np.zeros(len(X), bool)
    columns: dict[int, Column] = {}
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
        mine = distance >= ordered[1:][apart.argmax()]
        rest = X[~mine, j]
        columns[int(j)] = Column(int(mine.sum()), float(rest.min()), float(rest.max()))
        rows |= mine
    return Strays(rows, columns)
