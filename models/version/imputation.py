"""Vectors with missing values: scored on their observed values, on the scale of complete vectors.

The model itself fills in the missing values, in a few passes: x_m <- E[x_m | z = m(x)], the VAE's
reconstruction given the observed values (Rezende, Mohamed & Wierstra, Stochastic backpropagation,
2014, section 5, with means in place of draws). Kind `mahalanobis` uses the conditional mean under
the nearest regime; the distance is then exactly that of the observed features.

A score is smaller if fewer features are observed, so it is mapped back to the scale of complete
vectors. Let F be the distribution function of the scores of drawn vectors, and M that of the same
vectors with as many features hidden at random. Then

    s -> F^-1(M(s)),

is the score that is as rare among complete vectors as s is among vectors with gaps. Threshold,
p-value and severity then keep their meaning. This holds if values are missing at random.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import representable
from models.parts.network import Network
from models.parts.scaler import Scaler

PASSES = 5
DRAWN = 2_000  # vectors with which the two scales are compared
PATTERNS = 100  # random sets of hidden features for each share
# shares of hidden features; other shares are interpolated
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# beyond the largest score, the distance of these quantiles gives the ratio of the scales
TAIL = (0.9, 0.99)

Fill = Callable[[Array], Array]
"""Scaled vectors with NaN (n, d) -> the same with all filled in."""


def fill_by_reconstruction(network: Network, drawn: Array) -> Fill:
    """Return a function that fills gaps with the VAE's reconstruction.

    It begins with the mean of generated normals `drawn` (m, d), and stays in their range: beside a
    value far outside, the reconstruction of the other values grows without bound.
    """
    start, low, high = drawn.mean(axis=0), drawn.min(axis=0), drawn.max(axis=0)

    def fill(x: Array) -> Array:
        hidden = np.isnan(x)
        filled = np.where(hidden, start, x)
        for _ in range(PASSES):
            expected = np.clip(network.decode(network.encode(filled)[0]), low, high)
            filled = np.where(hidden, expected, filled)
        return filled

    return fill


def filled_in(X: Array, scaler: Scaler, fill: Fill) -> Array:
    """Return X (n, d), in the client's units, with each NaN filled in by `fill`."""
    hidden = np.isnan(X)
    if (rows := hidden.any(axis=1)).any():
        whole = scaler.inverse(fill(scaler.transform(X[rows])))
        X = X.copy()
        X[rows] = np.where(hidden[rows], whole, X[rows])
    return X


def filled_from_nearest(X: Array, categories: Sequence[int]) -> Array:
    """Return X (n, d) with each NaN filled in from the nearest complete row.

    The distance is over the columns that both rows have, each in units of its own deviation; two
    different values of a category are one deviation apart. If no row is complete, a gap takes its
    column's median, or a category's most frequent value. Rows filled in before the first model thus
    keep the spread and the dependence of the observed values.
    """
    hidden = np.isnan(X)
    if not hidden.any():
        return X
    whole = X[~hidden.any(axis=1)]
    # A column without any observed value becomes 0.
    empty = hidden.all(axis=0)
    medians = np.zeros(X.shape[1])
    medians[~empty] = np.nanmedian(X[:, ~empty], axis=0)
    for j in categories:
        values, counts = np.unique(X[~hidden[:, j], j], return_counts=True)
        medians[j] = values[counts.argmax()] if len(values) else 0.0
    filled = np.where(hidden, medians, X).astype(np.float32)
    if not len(whole):
        return filled
    whole = whole[np.linspace(0, len(whole) - 1, min(len(whole), DRAWN)).astype(int)]
    deviation = whole.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1.0)
    words = np.isin(np.arange(X.shape[1]), categories)
    for row in np.flatnonzero(hidden.any(axis=1)):
        seen = ~hidden[row]
        apart = (whole[:, seen] - X[row, seen].astype(np.float64)) / scale[seen]
        apart = np.where(words[seen], apart != 0, apart)
        filled[row, ~seen] = whole[np.square(apart).sum(axis=1).argmin(), ~seen]
    return filled


class GapScale(NamedTuple):
    """The ascending scores (s, g) of g drawn vectors, for each of s counts of hidden features.

    `counts` (s,) begins with 0: the first row has the scores of complete vectors. An artifact
    stores the scale, because its computation takes seconds.
    """

    counts: NDArray[np.int64]
    scores: Float64

    @classmethod
    def of(
        cls, x: Array, fill: Fill, score: Callable[[Array], Float64], owners: NDArray[np.intp]
    ) -> "GapScale":
        """Score x (g, d), scaled, complete and with features hidden at random.

        `owners` (d,) is the feature of each number of x.
        """
        d = int(owners.max()) + 1
        rng = np.random.default_rng(0)
        counts = np.unique([0, *(min(d - 1, max(1, round(share * d))) for share in SHARES)])
        order = rng.random((PATTERNS, d)).argsort(axis=1).argsort(axis=1)
        order = order[np.arange(len(x)) % PATTERNS][:, owners]
        rows = [
            np.sort(score(fill(np.where(order < count, np.float32(np.nan), x)))) for count in counts
        ]
        # Scores are rounded as in an artifact, so that a version scores the same before and after
        # saving.
        return cls(counts, representable(np.stack(rows)).astype(np.float32).astype(np.float64))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "GapScale | None":
        """Return the scale that `to_tensors` wrote; None if there is none."""
        if "gaps.counts" not in tensors:
            return None
        return cls(tensors["gaps.counts"], tensors["gaps.scores"].astype(np.float64))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return counts (s,) and scores (s, g) by name, in the form that an artifact stores."""
        return {"gaps.counts": self.counts, "gaps.scores": self.scores.astype(np.float32)}

    def as_complete(self, scores: Float64, hidden: NDArray[np.int64]) -> Float64:
        """Return scores (n,) of vectors with gaps on the scale of complete vectors."""
        above = np.clip(np.searchsorted(self.counts, hidden), 1, len(self.counts) - 1)
        moved = np.empty_like(scores)
        for upper in np.unique(above):
            own = above == upper
            low, high = self.counts[upper - 1], self.counts[upper]
            share = (hidden[own] - low) / (high - low)
            from_low = _equally_rare(scores[own], self.scores[upper - 1], self.scores[0])
            from_high = _equally_rare(scores[own], self.scores[upper], self.scores[0])
            moved[own] = (1.0 - share) * from_low + share * from_high
        return moved


def _equally_rare(scores: Float64, hidden: Float64, whole: Float64) -> Float64:
    """Map scores (n,) to scores as rare among `whole` (g,) as they are among `hidden` (g,)."""
    moved = np.interp(scores, hidden, whole)
    low, high = (np.quantile(each, TAIL) for each in (hidden, whole))
    ratio = (high[1] - high[0]) / max(low[1] - low[0], 1e-9)
    beyond = ratio * np.maximum(scores - hidden[-1], 0.0)
    below = np.minimum(scores - hidden[0], 0.0)
    return moved + beyond + below
