"""The distribution of each learned feature, with which drift tests compare live traffic."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array

BINS = 16
WINDOW = 1000  # rows in a window: the fewest that the drift tests compare with the reference


@dataclass(frozen=True, slots=True)
class Reference:
    """A histogram of each feature in the client's units, and how far normals wandered from it.

    `edges` (d, B - 1) float32 ascend; bin b holds edges[b - 1] <= x < edges[b]. `expected` (d, B)
    float64 is the share of normals in each bin; rows sum to 1.

    A feature may have seasons, so parts of the normals differ from the whole. A window is `WINDOW`
    consecutive normals. `wander` (d,) float64 is the largest distance between the distribution
    function of a window and that of all normals, or of the half of the experience without the
    window. `score_wander` (1,) is the largest distance between the p-values of a window and the
    uniform distribution.
    """

    edges: Array
    expected: NDArray[np.float64]
    wander: NDArray[np.float64]
    score_wander: NDArray[np.float64]

    @classmethod
    def fit(cls, X: Array) -> Self:
        """Fit to the first normals X (n, d), in order of arrival.

        Ten bins have about equal shares. On either side, further bins end one and three ranges
        further out, for later regimes. The edges never change, so that counts of different versions
        can be added.
        """
        deciles = np.quantile(X, np.arange(1, 10) / 10, axis=0)
        low, high = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
        width = np.where(high > low, high - low, np.maximum(np.abs(high) * 1e-3, 1e-3))
        outer = [low - 3 * width, low - width, low, high + 1e-6 * width, high + width]
        edges = np.sort(np.stack([*outer, high + 3 * width, *deciles]), axis=0).T
        d = X.shape[1]
        edges = np.ascontiguousarray(np.clip(edges, -3.4e38, 3.4e38), np.float32)
        empty = cls(edges, np.zeros((d, BINS)), np.zeros(d), np.zeros(1))
        return empty.updated(X, 0.0)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Return the reference in a version's tensors; early versions have no `wander`."""
        edges = tensors["reference.edges"]
        wander = tensors.get("reference.wander", np.zeros(len(edges)))
        of_scores = tensors.get("reference.score_wander", np.zeros(1))
        return cls(edges, tensors["reference.expected"], wander, of_scores)

    @property
    def first_range(self) -> Array:
        """The smallest and the largest value of each feature among the first normals, (2, d)."""
        return self.edges[:, (2, BINS - 4)].T

    @property
    def constant(self) -> NDArray[np.bool_]:
        """The mask (d,) of the features whose values so far all lie within 0.1 % of one value."""
        edges = self.edges.astype(np.float64)  # differences may exceed float32's range
        low, high, beyond = edges[:, 2], edges[:, BINS - 4], edges[:, BINS - 3]
        own_bin = (edges <= low[:, None]).sum(axis=1)
        share = self.expected[np.arange(len(own_bin)), own_bin]
        # Nine of ten values of a counter may be 0. Its range, unlike its deciles, shows that it
        # varies: the bin beyond `high` is as wide as the range, or 0.1 % of a constant's value.
        return (high - low <= 0.5 * (beyond - high)) & (share > 1.0 - 1e-9)

    def with_constants(self, X: Array) -> Array:
        """Return drawn vectors X (n, d) with the value itself where a feature has only one.

        A generator draws it with the noise of float32, and to some scores any other value is novel.
        """
        low, _ = self.first_range  # the other end lies up to 1e-9 above a constant near 0
        return np.where(self.constant, low, X).astype(X.dtype)

    def updated(self, X: Array, share_old: float) -> Self:
        """Return the reference updated with normals X (n, d), in order, of weight 1 - share_old."""
        expected = share_old * self.expected + (1.0 - share_old) * self.bin_counts(X) / len(X)
        wander = np.maximum(self.wander, self._farthest(X, np.cumsum(expected, axis=1)))
        # Live rows are compared with rows learned earlier. So each half is also compared with the
        # other half alone.
        early, late = np.split(X, [len(X) // 2])
        if len(early) >= WINDOW:
            for half, other_half in ((early, late), (late, early)):
                wander = np.maximum(wander, self._farthest(half, self._cumulative(other_half)))
        return replace(self, expected=expected, wander=np.minimum(wander, 1.0))

    def _farthest(self, X: Array, whole: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest distance (d,) of a window of X (n, d) from `whole`, by feature.

        `whole` (d, B) are distribution functions at the bins' ends.
        """
        distance = np.zeros(len(whole))
        for window in _windows(len(X)):
            distance = np.maximum(distance, np.abs(self._cumulative(X[window]) - whole).max(axis=1))
        return distance

    def _cumulative(self, X: Array) -> NDArray[np.float64]:
        """Return the distribution function (d, B) of each feature of X, at the bins' ends."""
        return np.cumsum(self.bin_counts(X), axis=1) / len(X)

    def with_scores(self, p_values: NDArray[np.float64]) -> Self:
        """Return the reference updated with the scores' `p_values` (n,) of normals, in order."""
        wander, uniform = self.score_wander, np.arange(1, WINDOW + 1) / WINDOW
        for window in _windows(len(p_values)):
            distance = np.abs(np.sort(p_values[window]) - uniform).max()
            wander = np.maximum(wander, min(float(distance), 1.0))
        return replace(self, score_wander=wander)

    def bin_counts(self, X: Array) -> NDArray[np.int64]:
        """Return how many rows of X (n, d) fall in each bin, (d, B)."""
        d, bins = self.expected.shape
        counts = np.empty((d, bins), np.int64)
        for j in range(d):
            bin_of = np.searchsorted(self.edges[j], X[:, j], side="right")
            counts[j] = np.bincount(bin_of, minlength=bins)
        return counts


def _windows(n: int) -> Iterator[slice]:
    """Yield the windows of n rows; each overlaps the next by half. Too few rows give none."""
    return (slice(start, start + WINDOW) for start in range(0, n - WINDOW + 1, WINDOW // 2))
