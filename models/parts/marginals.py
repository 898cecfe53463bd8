"""Maps each feature to normal scores, which suit skewed features better than mean and deviation."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64

KNOTS = 101
MOST_JOINED = 20_000  # the most values that represent those of an earlier map
REACH = 60.0  # in scaled units: values further out are clipped to this distance
_RANGE = 4.0 * REACH  # the room that each feature has in one ascending array of all knots


@dataclass(frozen=True)
class Marginals:
    """Knots of a piecewise linear map of scaled values to normal scores, for each feature.

    The knots `values` (d, K) are a feature's quantiles, ascending. Each maps to its entry of
    `scores` (d, K): the quantile of N(0, 1) of the same order, centred and divided by the feature's
    deviation after mapping. Equal values map to the middle of their quantiles. Beyond the outermost
    knots the map has slope `unit` (d,).
    """

    values: Float64
    scores: Float64
    unit: Float64

    _offset: Float64 = field(init=False, repr=False, compare=False)
    _ends: Float64 = field(init=False, repr=False, compare=False)
    _slope: Float64 = field(init=False, repr=False, compare=False)
    _start: Float64 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        d, knots = self.values.shape
        step, rise = np.diff(self.values, axis=1), np.diff(self.scores, axis=1)
        slope = np.empty((d, knots + 1))
        slope[:, [0, -1]] = self.unit[:, None]
        slope[:, 1:-1] = np.divide(rise, step, out=np.zeros_like(rise), where=step > 0)
        # Piece i of the map ends at knot i; on it the map is start + slope * value.
        knot = np.r_[0, :knots]  # a knot on each piece
        offset = _RANGE * np.arange(d)
        # Each feature has one more knot after its last; all values of the next feature lie beyond
        # it.
        ends = np.column_stack([self.values, np.full(d, 0.5 * _RANGE)]) + offset[:, None]
        for name, value in (
            ("_offset", offset),
            ("_ends", ends.ravel()),
            ("_slope", slope.ravel()),
            ("_start", (self.scores[:, knot] - slope * self.values[:, knot]).ravel()),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def fit(cls, x: Array) -> Self:
        """Fit to scaled vectors x (n, d)."""
        from scipy.special import ndtri

        n, d = x.shape
        x = within_reach(x).astype(np.float64)
        order = np.r_[0.5 / n, np.linspace(0.01, 0.99, KNOTS - 2), 1.0 - 0.5 / n]
        order = np.sort(order)
        values = _at(np.sort(x, axis=0), order * (n - 1), max(2, n // KNOTS)).T  # (d, K)
        scores = np.empty_like(values)
        for feature_scores, knots in zip(scores, values, strict=True):
            _, group = np.unique(knots, return_inverse=True)  # equal knots share a score
            feature_scores[:] = (np.bincount(group, order) / np.bincount(group))[group]
        raw = cls(values, ndtri(scores), np.ones(d))
        mapped = raw(x)
        spread = mapped.std(axis=0)
        spread[spread < 1e-6] = 1.0
        scores = (raw.scores - mapped.mean(axis=0)[:, None]) / spread[:, None]
        return cls(values, scores, 1.0 / spread)

    def joined(self, x: Array, share: float) -> Self:
        """Return a map fitted to this map's quantiles, with weight `share`, and to x (n, d)."""
        n = min(MOST_JOINED, max(2, round(len(x) * share / (1.0 - share))))
        order = np.r_[0.0, np.linspace(0.01, 0.99, KNOTS - 2), 1.0]
        place = np.interp((np.arange(n) + 0.5) / n, order, np.arange(KNOTS))  # (n,) in knots
        old = _at(self.values.T, place, 2)
        return type(self).fit(np.concatenate([old.astype(np.float32), x]))

    def __call__(self, x: Array) -> Float64:
        """Return the normal scores of scaled vectors x (n, d), (n, d)."""
        clipped = within_reach(x)
        return self.on_pieces(clipped, self.pieces(clipped))

    def pieces(self, x: Array) -> NDArray[np.intp]:
        """Return the piece of the map on which each value of x lies; all are within `REACH`.

        x is (n, d) or (d,). Each feature has `K + 1` pieces, and those of all features are counted
        together.
        """
        # One search serves all features, because the knots of each feature lie in their own range.
        return self._ends.searchsorted(x + self._offset, side="right")

    def on_pieces(self, x: Array, pieces: NDArray[np.intp]) -> Float64:
        """Return the normal scores of x (n, d) or (d,), whose values lie on these `pieces`."""
        scores: Float64 = self._slope.take(pieces)
        scores *= x
        scores += self._start.take(pieces)
        return scores

    def at_pieces(self, pieces: NDArray[np.intp]) -> Array:
        """Return values (n, d) on these `pieces` (n, d): the knot at which each begins."""
        d, knots = self.values.shape
        knot = np.maximum(pieces - np.arange(d) * (knots + 1) - 1, 0)
        exact = self.values[np.arange(d), knot]
        x = exact.astype(np.float32)
        # A value that is rounded down would lie on the piece before.
        return np.where(x < exact, np.nextafter(x, np.float32(np.inf)), x)

    def inverse(self, y: Float64) -> Float64:
        """Return scaled vectors (n, d) with the normal scores y (n, d).

        A value that recurs is the knot of several quantiles, and no other values lie close to it.
        Close to such a value the result is the nearest knot, so that whole numbers stay whole.
        """
        x = np.empty_like(y)
        for j, (values, scores) in enumerate(zip(self.values, self.scores, strict=True)):
            first = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # the scores ascend
            s, v = scores[first], values[first]  # the distinct scores and their values
            recurs = np.diff(np.r_[first, len(scores)]) > 1
            column = y[:, j]
            x[:, j] = np.interp(column, s, v)
            x[:, j] += np.minimum(column - s[0], 0.0) / self.unit[j]
            x[:, j] += np.maximum(column - s[-1], 0.0) / self.unit[j]
            right = np.clip(s.searchsorted(column), 1, max(1, len(s) - 1))
            left = right - 1
            right = np.minimum(right, len(s) - 1)
            nearest = np.where(column - s[left] < s[right] - column, v[left], v[right])
            x[:, j] = np.where(recurs[left] | recurs[right], nearest, x[:, j])
        return x


def _at(ascending: Float64, places: Float64, copies: int) -> Float64:
    """Return the values (m, d) at these `places` (m,), counted from 0, of `ascending` (n, d).

    Between two entries the value is interpolated. Beside an entry that occurs `copies` times it is
    the nearest entry: a value between two whole numbers would be a new one.
    """
    left = np.minimum(places.astype(np.int64), max(0, len(ascending) - 2))
    right = np.minimum(left + 1, len(ascending) - 1)
    between = ascending[left] + (places - left)[:, None] * (ascending[right] - ascending[left])
    nearest = ascending[places.round().astype(np.int64)]
    for j, column in enumerate(ascending.T):
        recurs = np.zeros(len(places), bool)
        for ends in (column[left], column[right]):
            recurs |= column.searchsorted(ends, "right") - column.searchsorted(ends) >= copies
        between[recurs, j] = nearest[recurs, j]
    return between


def _recurs(values: Float64) -> NDArray[np.bool_]:
    """Return the mask of the ascending values (..., K) that are equal to a neighbour."""
    equal = np.diff(values, axis=-1) == 0.0
    edge = np.zeros_like(equal[..., :1])
    return np.concatenate([equal, edge], axis=-1) | np.concatenate([edge, equal], axis=-1)


def within_reach(x: Array) -> Array:
    """Return scaled vectors x with each value clipped to REACH."""
    return np.minimum(np.maximum(x, np.float32(-REACH)), np.float32(REACH))
