"""Chooses the score of each row that calibrates: a held-out score or the serving network's.

Usually the calibration uses a row's score under the network that left the row out, although another
network serves. This is right for a row that occurs once. For a value that recurs, the score under
the serving network is exact: that network has learned the value and will see it again.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from models.arrays import Array, Float64
from models.parts.calibration import COMMON, Calibration, representable
from models.training.mixing import RARE

CHANCE = 0.5  # the least variance, relative to their mean, of the counts of rows equal by chance
STATES = 50  # up to this many distinct rows are states that recur: on average a common value
MOST_COMPARED = 8_000  # with more distinct rows, near copies are not looked for
COMPARED = 500  # the rows whose partners are counted
DIRECTIONS = 12  # the number of directions in which rows of more columns are compared
DISTANCES = 0.4 * 4.0 ** np.arange(-8, 1)  # the distances of near copies, in scaled units
# Rows within such a distance are near copies if rows have at least COPIED partners on average, and
# at most GROWTH times as many within the next distance.
COPIED, GROWTH = 0.05, 1.2


class EqualRows(NamedTuple):
    """The copies among the `rows` rows of a training: rows that are equal, or nearly equal.

    Rows that are equal by chance, such as the same flags, are not copies. For each row, `first`
    (n,) is the index of the first of its copies, and `counts` (n,) their number, the row itself
    included.
    """

    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    rows: int

    @classmethod
    def find(cls, x: Array) -> "EqualRows":
        """Find the copies among the scaled rows of x (n, d)."""
        values, first, group_of, times = np.unique(
            x, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        group_of = group_of.reshape(len(x))
        first, counts = first[group_of], times[group_of]
        if 2 <= len(values) <= MOST_COMPARED:
            set_of = _near_copies(values)[group_of]
            _, earliest, set_of, size = np.unique(
                set_of, return_index=True, return_inverse=True, return_counts=True
            )
            # A set as frequent as a common value is a narrow regime: its rows are not copies.
            is_set = size[set_of] < COMMON * len(x)
            first = np.where(is_set, earliest[set_of], first)
            counts = np.where(is_set, size[set_of], counts)
        rare = times < COMMON * len(x)
        if len(values) <= STATES or _equal_by_chance(values, times[rare]):
            single = rare[group_of]
            first, counts = np.where(single, np.arange(len(x)), first), np.where(single, 1, counts)
        return cls(first, counts, len(x))

    def at(self, rows: NDArray[np.int64]) -> "EqualRows":
        """Return the entries of the rows with the indices `rows` (m,)."""
        return self._replace(first=self.first[rows], counts=self.counts[rows])

    @property
    def common(self) -> NDArray[np.bool_]:
        """The mask of the rows whose value makes up at least the share COMMON of all rows."""
        return self.counts >= max(2.0, COMMON * self.rows)

    @property
    def distinct(self) -> int:
        """The number of rows, with copies counted once; common values are not copies."""
        is_first = self.first == np.arange(len(self.first))
        return int((is_first | self.common).sum())


def _equal_by_chance(values: Array, counts: NDArray[np.int64]) -> bool:
    """Return whether the distinct rows `values` (n, d) recur by chance, as rows of flags do.

    `counts` (m,) says how often each rare one of them occurs. Rows that recur by chance combine the
    same few values in each column, and their counts vary at least as much as chance makes them. If
    such a row is held out, the network has still learned its equals. Copies of a row, in contrast,
    have a value that few other rows have, or equal counts.
    """
    if not len(counts) or counts.var() < CHANCE * counts.mean():
        return False
    return all(2 * len(np.unique(column)) <= len(values) for column in values.T)


def _near_copies(values: Array) -> NDArray[np.int64]:
    """Return for each of distinct scaled rows (n, d) the number of its set of near copies, (n,).

    Rows are near copies if they lie within a distance at which rows have partners, but hardly more
    partners at four times this distance. Rows that are merely dense have far more there. A row
    without near copies is a set of its own.
    """
    n, d = values.shape
    if d > DIRECTIONS:  # near copies are close in any directions
        axes = np.random.default_rng(0).normal(size=(d, DIRECTIONS)) / math.sqrt(DIRECTIONS)
        values = (values @ axes).astype(np.float32)
    tree, sample = KDTree(values), values[:: max(1, n // COMPARED)]
    # the mean number of a row's partners within each distance
    partners = KDTree(sample).count_neighbors(tree, DISTANCES) / len(sample) - 1.0
    fits = (partners[:-1] >= COPIED) & (partners[1:] <= GROWTH * partners[:-1])
    fits &= partners[:-1] <= COMMON * n  # rows with more partners are a narrow regime
    if not fits.any():
        return np.arange(n)
    linked = tree.query_pairs(DISTANCES[np.flatnonzero(fits)[-1]], output_type="ndarray").T
    graph = coo_array((np.ones(linked.shape[1]), linked), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def calibration_scores(held_out: Float64, serving: Float64, copies: EqualRows) -> Float64:
    """Return the scores (..., n) that calibrate the rows of `copies`.

    `held_out` (..., n) are the scores by the networks that left the rows out, `serving` (..., n)
    those by the serving network. A common value takes the serving score, which it will have again.
    A copied row takes the larger of both scores, because an equal row may or may not come again.
    All near copies take the largest such score, so that `Calibration.false_alarm_rate` recognises
    them as copies.
    """
    order = copies.first.argsort(kind="stable")
    starts = np.r_[True, np.diff(copies.first[order]) > 0]
    set_of = np.empty(len(order), np.int64)
    set_of[order] = np.cumsum(starts) - 1
    scores = np.where(copies.counts > 1, np.maximum(held_out, serving), held_out)
    largest = np.maximum.reduceat(scores[..., order], np.flatnonzero(starts), axis=-1)
    return np.where(copies.common, serving, largest[..., set_of])


def disagreement(held_out: Float64, serving: Float64) -> float | None:
    """Return the share of rows above the threshold for 1 % of alarms; None if chance explains it.

    The threshold follows from the scores `held_out` (n,). The rows are compared with it by their
    scores `serving` (n,) under the serving network. That network learned the rows, so the share
    should be below 1 %.
    """
    calibration = Calibration(np.sort(representable(held_out)))
    threshold = calibration.threshold({"fpr": RARE}).value
    share = float((serving >= threshold).mean())
    expected = max(RARE, calibration.false_alarm_rate(threshold).high)
    return share if share > expected else None
