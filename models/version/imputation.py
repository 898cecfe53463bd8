"""Vectors with missing values: scored on the observed ones, on the scale of complete vectors.

What is missing is filled in by the model itself, in a few passes: x_m <- E[x_m | z = m(x)], the
VAE's reconstruction given what is observed (Rezende, Mohamed & Wierstra, Stochastic
backpropagation, 2014, section 5, with means for draws), or the conditional mean under the nearest
regime of kind `mahalanobis`, where the distance is then exactly that of the observed features.

The fewer features are seen, the smaller is a score, so it is put back on the scale of whole
vectors: with M the scores of drawn vectors, as many of whose features are hidden at random, and F
the scores of the same vectors whole,

    s -> F^-1(M(s)),

the score as rare among whole vectors as s is among such. Threshold, p-value and severity then
mean what they always do. That holds where what is missing is missing at random.
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
DRAWN = 2_000  # vectors that the two scales are compared on
PATTERNS = 100  # random sets of hidden features, for each share
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # hidden; in between they are interpolated
TAIL = (0.9, 0.99)  # quantiles whose distance gives the ratio of the scales beyond the largest

Fill = Callable[[Array], Array]
"""Scaled vectors with NaN (n, d) -> the same with all filled in."""


def reconstructed(network: Network, start: Array) -> Fill:
    """Return what fills by the VAE's own reconstruction, beginning with `start` (d,)."""

    def fill(x: Array) -> Array:
        hidden = np.isnan(x)
        filled = np.where(hidden, start, x)
        for _ in range(PASSES):
            filled = np.where(hidden, network.decode(network.encode(filled)[0]), filled)
        return filled

    return fill


def filled_in(X: Array, scaler: Scaler, fill: Fill) -> Array:
    """Return X (n, d), in the client's units, with each NaN as `fill` has it."""
    hidden = np.isnan(X)
    if (rows := hidden.any(axis=1)).any():
        whole = scaler.inverse(fill(scaler.transform(X[rows])))
        X = X.copy()
        X[rows] = np.where(hidden[rows], whole, X[rows])
    return X


def from_alike(X: Array, categories: Sequence[int] = ()) -> Array:
    """Return X (n, d) with each gap, NaN, as it is in the complete row that is most alike.

    Alike is what is near in the columns that both have, each in its own deviations; `categories`
    are alike or a deviation apart. Where no row is complete, a gap is its column's median, and of
    a category the commonest value. So gaps that come before any model keep the spread and
    the dependence of what was observed.
    """
    hidden = np.isnan(X)
    if not hidden.any():
        return X
    whole = X[~hidden.any(axis=1)]
    # A column without any observed value is left as it is.
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


class Scale(NamedTuple):
    """What whole vectors score (g,), ascending, and, for each count hidden (s,), such ones (s, g).

    `counts` begins with 0, whose row is that of whole vectors. An artifact carries it: comparing
    costs seconds of the processor.
    """

    counts: NDArray[np.int64]
    scores: Float64

    @classmethod
    def of(
        cls, x: Array, fill: Fill, score: Callable[[Array], Float64], owners: NDArray[np.intp]
    ) -> "Scale":
        """Compare the scores of x (g, d), scaled, whole and with features hidden at random.

        `owners` (d,) say which feature each number of x is of.
        """
        d = int(owners.max()) + 1
        rng = np.random.default_rng(0)
        counts = np.unique([0, *(min(d - 1, max(1, round(share * d))) for share in SHARES)])
        order = rng.random((PATTERNS, d)).argsort(axis=1).argsort(axis=1)
        order = order[np.arange(len(x)) % PATTERNS][:, owners]
        rows = [
            np.sort(score(fill(np.where(order < count, np.float32(np.nan), x)))) for count in counts
        ]
        # Rounded as an artifact holds them, so that a version scores the same before and after.
        return cls(counts, representable(np.stack(rows)).astype(np.float32).astype(np.float64))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "Scale | None":
        """Return the scale that `to_tensors` wrote; None where there is none."""
        if "gaps.counts" not in tensors:
            return None
        return cls(tensors["gaps.counts"], tensors["gaps.scores"].astype(np.float64))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return counts (s,) and scores (s, g) by name, as an artifact holds them."""
        return {"gaps.counts": self.counts, "gaps.scores": self.scores.astype(np.float32)}

    def whole(self, scores: Float64, hidden: NDArray[np.int64]) -> Float64:
        """Return the scores (n,) of vectors with hidden features on the scale of complete ones."""
        above = np.clip(np.searchsorted(self.counts, hidden), 1, len(self.counts) - 1)
        moved = np.empty_like(scores)
        for upper in np.unique(above):
            own = above == upper
            low, high = self.counts[upper - 1], self.counts[upper]
            share = (hidden[own] - low) / (high - low)
            from_low = _moved(scores[own], self.scores[upper - 1], self.scores[0])
            from_high = _moved(scores[own], self.scores[upper], self.scores[0])
            moved[own] = (1.0 - share) * from_low + share * from_high
        return moved


def _moved(scores: Float64, hidden: Float64, whole: Float64) -> Float64:
    """Map scores (n,) to those as rare among `whole` (g,) as they are among `hidden` (g,)."""
    moved = np.interp(scores, hidden, whole)
    low, high = (np.quantile(each, TAIL) for each in (hidden, whole))
    ratio = (high[1] - high[0]) / max(low[1] - low[0], 1e-9)
    beyond = ratio * np.maximum(scores - hidden[-1], 0.0)
    below = np.minimum(scores - hidden[0], 0.0)
    whole_scores: Float64 = moved + beyond + below
    return whole_scores
