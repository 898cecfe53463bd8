"""Vectors with missing values: scored on their observed values, on the scale of complete vectors.

The model itself fills in the missing values, in a few passes: x_m <- E[x_m | z = m(x)], the VAE's
reconstruction given the observed values (Rezende, Mohamed & Wierstra, Stochastic backpropagation,
2014, section 5, with means in place of draws). Kind `mahalanobis` uses the conditional mean under
the nearest regime; the distance is then exactly that of the observed features.

A score is smaller if fewer features are observed, so it is mapped back to the scale of complete
vectors. Let F be the distribution function of the calibration scores, and M that of the scores of
learned or drawn vectors with as many features hidden. M is corrected by the difference of these
vectors' scores from F when they are complete. Then

    s -> F^-1(M(s))

gives the score that is as rare among complete vectors as s is among vectors with gaps. Threshold,
p-value and severity then keep their meaning. This holds if values are missing at random.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import representable
from models.parts.fine_combinations import FineCombinations
from models.parts.network import Network
from models.parts.scaler import Scaler

PASSES = 5
DONORS = 2_000  # rows from which the values of the first experience's gaps come
BLOCK = 500  # rows compared at once with the donors
FURTHEST = 20.0  # deviations: values further out do not decide which rows are similar
FEW = 20  # columns with at most this many distinct values are not moved
RIDGE = 1e-3  # added to each variance, so that equal columns have a regression
DRAWN = 2_000  # vectors with which the two scales are compared
PATTERNS = 100  # random sets of hidden features for each share
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # of hidden features; others are interpolated
TAIL = (0.9, 0.99)  # the quantiles whose distance gives the ratio of the scales beyond all scores

Fill = Callable[[Array], Array]
"""Scaled vectors with NaN (n, d) -> the same with all filled in."""


def fill_by_reconstruction(network: Network, drawn: Array, fine: FineCombinations | None) -> Fill:
    """Return a function that fills gaps with the VAE's reconstruction.

    It begins with the mean of generated normals `drawn` (m, d), and stays in their range: beside a
    value far outside, the reconstruction of the other values grows without bound. In the end the
    filled values are moved until the combinations `fine` hold, because these are more precise than
    the network.
    """
    start, low, high = drawn.mean(axis=0), drawn.min(axis=0), drawn.max(axis=0)
    variances = np.exp(network.tensors["noise"][0])

    def fill(x: Array) -> Array:
        hidden = np.isnan(x)
        filled = np.where(hidden, start, x)
        for _ in range(PASSES):
            expected = np.clip(network.decode(network.encode(filled)[0]), low, high)
            filled = np.where(hidden, expected, filled)
        if fine is not None:
            expected = np.clip(fine.filled(filled, hidden, variances), low, high)
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


def filled_from_similar(X: Array, categories: Sequence[int]) -> Array:
    """Return X (n, d) with each NaN filled in from the most similar row that has this value.

    Rows are compared in the columns that both have. A filled-in number is then moved: it becomes
    the linear estimate from the other columns of its own row, plus the similar row's residual from
    that estimate. So the spread of the observed values and their dependence stay; unmoved, rows
    would be near copies of each other in a column that few rows have. Categories and columns of few
    distinct values are not moved. A column without any observed value becomes 0.
    """
    hidden = np.isnan(X)
    if not hidden.any():
        return X
    words = np.isin(np.arange(X.shape[1]), categories)
    middle, unit = _middle_and_unit(X, words)
    x = np.where(words, X, np.clip((X - middle) / unit, -FURTHEST, FURTHEST))
    donor_of = _most_similar(x, words)
    every = np.arange(X.shape[1])
    given = X[donor_of, every]
    filled = np.where(np.isnan(given), middle, given).astype(np.float32)
    moved = ~words & np.array([len(np.unique(column)) > FEW for column in filled.T])
    hidden &= moved & ~np.isnan(given)
    if not hidden.any():
        return filled
    x = np.clip((filled - middle) / unit, -FURTHEST, FURTHEST)[:, moved]
    hidden, donor_of = hidden[:, moved], donor_of[:, moved]
    middle, unit = middle[moved], unit[moved]
    low = x.min(axis=0, where=~hidden, initial=np.inf)
    high = x.max(axis=0, where=~hidden, initial=-np.inf)
    for _ in range(PASSES):
        centred = x - x.mean(axis=0)
        # The inverse of the covariance has the regression of each column on all others.
        inverse = np.linalg.inv(centred.T @ centred / len(x) + RIDGE * np.eye(x.shape[1]))
        residuals = centred @ inverse / np.diag(inverse)
        moving = x - residuals + residuals[donor_of, np.arange(x.shape[1])]
        x = np.where(hidden, np.clip(moving, low, high), x)
    filled[:, moved] = np.where(hidden, middle + unit * x, filled[:, moved])
    return filled


def _middle_and_unit(X: Array, words: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Return the median and a robust deviation of each column of X (n, d), (d,) each.

    For categories, `words` (d,), and for columns without any value they are 0 and 1.
    """
    values = np.where(words | np.isnan(X).all(axis=0), 0.0, X.astype(np.float64))
    low, middle, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=0)
    unit = np.where(high > low, (high - low) / 1.35, np.nanstd(values, axis=0))
    return middle, np.where(unit > 0.0, unit, 1.0)


def _most_similar(x: Float64, words: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return for each value of x (n, d) the row from which it comes, (n, d).

    A value that is not missing comes from its own row, and so does a missing one that no donor has.
    The donors are DONORS rows spread over x.
    """
    n, d = x.shape
    seen = ~np.isnan(x)
    donors = np.linspace(0, n - 1, min(n, DONORS)).astype(int)
    donor_seen = seen[donors].astype(np.float64)
    numbers = np.where(seen & ~words, x, 0.0)
    donor_numbers = numbers[donors]
    donor_of = np.repeat(np.arange(n)[:, None], d, axis=1)
    with_gaps = np.flatnonzero(~seen.all(axis=1))
    for rows in np.array_split(with_gaps, len(with_gaps) // BLOCK + 1):
        block, block_seen = numbers[rows], seen[rows].astype(np.float64)
        # Squared differences in the columns that both rows have. Columns that one of them lacks
        # count as those of unrelated rows, whose squared difference is 2.
        distances = (
            (block**2) @ donor_seen.T
            - 2.0 * block @ donor_numbers.T
            + block_seen @ (donor_numbers**2).T
            - 2.0 * block_seen @ donor_seen.T
        )
        for j in np.flatnonzero(words):
            differ = x[rows, j, None] != x[donors, j]
            distances += differ * block_seen[:, j, None] * donor_seen[:, j]
        for j in np.flatnonzero(~seen[rows].all(axis=0)):
            with_value = np.flatnonzero(seen[donors, j])
            if len(with_value):
                gap = ~seen[rows, j]
                nearest = distances[gap][:, with_value].argmin(axis=1)
                donor_of[rows[gap], j] = donors[with_value[nearest]]
    return donor_of


class GapScale(NamedTuple):
    """The ascending scores (s, g) of g drawn vectors, for each of s counts of hidden features.

    `counts` (s,) begins with 0: the first row has the scores of complete vectors. An artifact
    stores the scale, because its computation takes seconds.
    """

    counts: NDArray[np.int64]
    scores: Float64

    @classmethod
    def measure(
        cls,
        x: Array,
        fill: Fill,
        score: Callable[[Array], Float64],
        owners: NDArray[np.intp],
        missing: NDArray[np.bool_] | None = None,
    ) -> "GapScale":
        """Score x (g, d), scaled, complete and with features hidden.

        `owners` (d,) is the feature of each number of x. The features that were `missing` (g, w)
        in a row are hidden first, in random order, then others at random.
        """
        d = int(owners.max()) + 1
        rng = np.random.default_rng(0)
        counts = np.unique([0, *(min(d - 1, max(1, round(share * d))) for share in SHARES)])
        place = rng.random((PATTERNS, d))[np.arange(len(x)) % PATTERNS]
        if missing is not None:
            place -= missing
        order = place.argsort(axis=1).argsort(axis=1)[:, owners]
        rows = [
            np.sort(score(fill(np.where(order < count, np.float32(np.nan), x)))) for count in counts
        ]
        return cls(counts, _rounded(np.stack(rows)))

    def with_calibration(self, calibration: Float64, features: int) -> "GapScale":
        """Return the scale on which complete vectors have the scores `calibration` (c,).

        These are the scores of normals that were not learned. The vectors of this scale were
        learned or drawn, or another version scored them, so that their scores differ, rank by rank,
        also if they are complete. If a share of the `features` is hidden, the remaining share of
        this difference counts.
        """
        g = self.scores.shape[1]
        complete = np.quantile(calibration, (np.arange(g) + 0.5) / g)
        seen = 1.0 - self.counts / features
        moved = self.scores + seen[:, None] * (complete - self.scores[0])
        return self._replace(scores=_rounded(np.sort(moved, axis=1)))

    def joined(self, other: "GapScale", share: float) -> "GapScale":
        """Return the scale of the vectors of both scales; `other` has the given share of them."""
        g = self.scores.shape[1]
        from_self = round(g * (1.0 - share))
        parts = [
            scale.scores[:, np.linspace(0, scale.scores.shape[1] - 1, n).round().astype(int)]
            for scale, n in ((self, from_self), (other, g - from_self))
        ]
        return self._replace(scores=np.sort(np.concatenate(parts, axis=1), axis=1))

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
            rows = above == upper
            low, high = self.counts[upper - 1], self.counts[upper]
            share = (hidden[rows] - low) / (high - low)
            from_low = _equally_rare(scores[rows], self.scores[upper - 1], self.scores[0])
            from_high = _equally_rare(scores[rows], self.scores[upper], self.scores[0])
            moved[rows] = (1.0 - share) * from_low + share * from_high
        return moved


def _rounded(scores: Float64) -> Float64:
    """Return scores as an artifact stores them, so that saving a version does not change them."""
    return representable(scores).astype(np.float32).astype(np.float64)


def _equally_rare(scores: Float64, hidden: Float64, whole: Float64) -> Float64:
    """Map scores (n,) to scores as rare among `whole` (g,) as they are among `hidden` (g,)."""
    moved = np.interp(scores, hidden, whole)
    low, high = (np.quantile(each, TAIL) for each in (hidden, whole))
    ratio = (high[1] - high[0]) / max(low[1] - low[0], 1e-9)
    beyond = ratio * np.maximum(scores - hidden[-1], 0.0)
    below = np.minimum(scores - hidden[0], 0.0)
    return moved + beyond + below
