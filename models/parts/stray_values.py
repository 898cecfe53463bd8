"""Stray rows in a first experience: sentinels, spikes and faults, far from all other rows.

A few strays would decide the scale of a feature, and the threshold. Strays lie beyond a gap: the
row before the gap is several times nearer to the middle. A long tail has no such gap. Rows beyond
a gap that are close to each other are a small regime, not strays.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from models.arrays import Array, Float64
from models.parts.feature_tree import few_valued

# One range is the distance between a feature's quartiles. A stray value lies at least REACH ranges
# from the median, and at least GAP times as far as the next nearer value.
REACH, GAP = 20.0, 5.0
# The size of a row is its distance from the middle after correlations are removed. A stray row's
# size has these bounds. The gap is smaller than that of a value, because several rows hardly ever
# lie beyond a gap by chance, even in a heavy tail.
ROW_REACH, ROW_GAP = 4.0, 2.0
LEAST_ROWS = 0.02  # the least share of rows of stray size; fewer do not decide the threshold
FEWEST = 10  # the fewest rows of stray size, and the fewest rows of a regime
MOST = 0.06  # the largest share of strays: more rows are a regime
# A stray belongs to a regime if it has enough neighbours. The nearest row of the inner half of all
# rows must be at least NEARER times as far away as each of them. Enough is the largest of three
# numbers: REGIME of all rows, half of the strays, and FEWEST.
REGIME, NEARER = 0.01, 1.5
COMPARED, BLOCK = 4_000, 500  # the most rows that are compared, and how many strays at a time
FURTHEST = 1e6  # in ranges: more would overflow
# Correlations are estimated from values clipped at CLIPPED ranges, in STEPS steps. The part of a
# feature that the other features do not predict has a deviation of at least FAINT ranges: a
# relation that is usually exact may then have exceptions.
CLIPPED, FAINT, STEPS = 3.0, 0.1, 4
MOST_RELATED, ROWS_A_FEATURE = 256, 10  # with more features, or fewer rows, relations are chance


class StrayValues(NamedTuple):
    """A mask (n,) of the stray rows, and the columns that make them strays."""

    rows: NDArray[np.bool_]
    columns: list[int]


def find_strays(X: Array) -> StrayValues:
    """Return the strays among the first normals X (n, d).

    A row is a stray by one value, or by values that do not occur together in the other rows.

    >>> X = np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    >>> X[7] = -9999
    >>> find_strays(X).rows.sum(), find_strays(X).columns
    (np.int64(1), [0])
    """
    least, low, middle, high, most = np.quantile(X, (0.1, 0.25, 0.5, 0.75, 0.9), axis=0)
    width = np.where(high > low, high - low, most - least)
    varies = np.flatnonzero(width > 0.0)
    z = (X[:, varies] - middle[varies].astype(np.float64)) / width[varies]  # (n, v) in ranges
    z = np.clip(z, -FURTHEST, FURTHEST)
    stray = np.zeros(z.shape, bool)
    sentinels = np.zeros(len(z), bool)  # rows with the commonest stray value of a column
    for j in np.flatnonzero(np.abs(z).max(axis=0) > REACH):
        stray[:, j] = beyond = _beyond_gap(np.abs(z[:, j]), GAP, REACH)
        values, counts = np.unique(z[beyond, j], return_counts=True)
        sentinels |= np.isin(z[:, j], values[2 * counts > counts.sum()])
    related = np.flatnonzero(~few_valued(z))  # a rare pair of codes is not a fault
    if len(related) > 1 and len(varies) <= min(MOST_RELATED, len(z) // ROWS_A_FEATURE):
        axes = _independent_axes(z[:, related])
        z[:, related] = z[:, related] @ axes
        size = np.linalg.norm(z[:, related], axis=1)
        least, low, middle, high, most = np.quantile(size, (0.1, 0.25, 0.5, 0.75, 0.9))
        spread = max(high - low, FAINT * middle) or most - least or 1.0
        rows = _beyond_gap((size - middle) / spread, ROW_GAP, ROW_REACH) & ~stray.any(axis=1)
        if rows.sum() >= max(FEWEST, LEAST_ROWS * len(z)):
            unexplained = np.abs(z[rows][:, related] @ axes.T) / np.linalg.norm(axes, axis=1)
            stray[rows, related[unexplained.argmax(axis=1)]] = True
    strays = np.logical_or.reduce(stray, axis=1)
    if _form_a_regime(z, strays):
        strays &= sentinels
    return StrayValues(strays, varies[stray[strays].any(axis=0)].tolist())


def _beyond_gap(distance: Float64, gap: float, reach: float) -> NDArray[np.bool_]:
    """Return a mask of the distances (n,) from the middle, in ranges, that lie beyond a gap."""
    ordered = np.sort(distance)
    before = np.maximum(ordered[:-1], 1.0)
    after_gap = (ordered[1:] > reach) & (ordered[1:] >= gap * before)
    after_gap[: int((1.0 - MOST) * len(distance)) - 1] = False
    if not after_gap.any():
        return np.zeros(len(distance), bool)
    return distance >= ordered[1:][after_gap.argmax()]


def _independent_axes(z: Float64) -> Float64:
    """Return axes (d, d) on which the innermost rows of z (n, d) vary independently, by 1 each."""
    z = z[:: max(1, len(z) // COMPARED)]
    z = z - np.median(z, axis=0)
    inner = rows = np.clip(z, -CLIPPED, CLIPPED)
    for _ in range(STEPS):
        covariance = np.cov(rows.T) + FAINT**2 * np.eye(z.shape[1])
        axes: Float64 = np.linalg.cholesky(np.linalg.inv(covariance))
        size = np.linalg.norm(z @ axes, axis=1)
        rows = inner[size <= np.quantile(size, 1.0 - 2.0 * MOST)]
    return axes


def _form_a_regime(z: Float64, strays: NDArray[np.bool_]) -> bool:
    """Return whether most of the `strays` (n,) among z (n, d) have many rows near them.

    Strays that form no regime are about as far from each other as from the inner half of all rows.
    """
    size = np.linalg.norm(z, axis=1)
    inner = z[~strays & (size <= np.median(size))]
    if not strays.any() or len(z) < 2 * FEWEST or not len(inner):
        return False
    step = max(1, len(z) // COMPARED)
    enough = max(FEWEST, round(max(REGIME * len(z), 0.5 * strays.sum()) / step))
    in_regime = 0
    for block in np.array_split(np.flatnonzero(strays), strays.sum() // BLOCK + 1):
        near = np.partition(cdist(z[block], z[::step]), enough, axis=1)[:, enough]
        in_regime += int((NEARER * near <= cdist(z[block], inner[::step]).min(axis=1)).sum())
    return in_regime > 0.5 * int(strays.sum())
