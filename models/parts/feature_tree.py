"""A tree of features: each feature's distribution given one other feature."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64

FEATURES = 128  # with more features there is no tree: the pairs of features are too many
BINS = 48  # the most bins of a feature
COARSE_BINS = 20  # the most bins of a feature in the tree of `fit_pairs`
CELLS = 65_536  # the most probabilities in all tables together
# With fewer rows in a bin, the trees of the folds differ too much from the tree that serves.
ROWS_A_BIN = 10
# Each table starts with this many rows for each bin, distributed like the feature in all rows.
PRIOR_ROWS = 0.1
HALF_A_ROW = 0.5  # a pair with fewer rows did not occur; rounding errors are smaller than this
ARRAYS = ("bins", "parents", "nats", "on_pieces")  # the names of the arrays in an artifact

Pieces = NDArray[np.intp]
"""The pieces of the marginal map on which values lie, as `Marginals.pieces` counts them."""


@dataclass(frozen=True)
class FeatureTree:
    """Probabilities p(bin of a feature | bin of its parent), which together form a tree.

    Chow & Liu, Approximating discrete probability distributions with dependence trees, 1968. A bin
    is one or more pieces of a feature's marginal map: `bins` (d, P) is the bin of each piece.
    `parents` (d,) is the parent of each feature, itself for a root. `nats` (K, d, K) is -log p
    for each bin of the parent, each feature, and each bin of the feature. `on_pieces` (d, P) is the
    number of rows on each piece; None in a tree of an earlier release, and in one of `fit_pairs`.
    `rows` is the number of rows to which the tree was fitted; None in a loaded tree.
    """

    bins: NDArray[np.int64]
    parents: NDArray[np.int64]
    nats: NDArray[np.float32]
    on_pieces: NDArray[np.float32] | None = None
    rows: int | None = field(default=None, compare=False)

    _bin_of: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _start: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _nats: Float64 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        k, d, _ = self.nats.shape
        object.__setattr__(self, "_bin_of", self.bins.ravel())
        object.__setattr__(self, "_start", np.arange(d) * k)
        object.__setattr__(self, "_nats", self.nats.ravel().astype(np.float64))

    @classmethod
    def fit(
        cls,
        pieces: Pieces,
        n_pieces: int,
        parents: NDArray[np.int64] | None = None,
        rows: int | None = None,
        most: int = BINS,
        few: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Fit to the `pieces` (n, d) of n rows.

        A feature has `n_pieces` pieces and at most `most` bins, at most one for ROWS_A_BIN rows.
        If `parents` (d,) are given, the tree keeps them. Otherwise the parents are found; with a
        mask `few` (d,), one feature of each pair in the tree is in the mask. If `rows` is given,
        the n rows count as that many. A tree of fewer rows makes a pair of bins that did not occur
        more likely, so the tree of a fold could not calibrate the scores of the tree that serves.
        """
        n, d = pieces.shape
        rows = rows or n
        most = max(2, min(most, rows // ROWS_A_BIN, math.isqrt(CELLS // d)))
        counts = np.bincount(pieces.ravel(), minlength=d * n_pieces).reshape(d, n_pieces)
        bins = np.stack([_bins(of_feature, most) for of_feature in counts])  # (d, P)
        codes = bins.ravel().take(pieces)  # (n, d)
        if parents is None:
            parents = _tree(codes, np.ones(d, bool) if few is None else few)
        k = int(bins.max()) + 1
        nats = np.zeros((k, d, k), np.float32)
        for j, parent in enumerate(parents):
            width = int(bins[j].max()) + 1
            given = _prior_rows(np.bincount(codes[:, j], minlength=width)) + np.zeros((k, 1))
            if parent != j:
                given += _pair_counts(codes[:, parent], codes[:, j], k, width) * (rows / n)
            nats[:, j, :width] = -np.log(given / given.sum(axis=1, keepdims=True))
        return cls(bins, parents, nats, counts.astype(np.float32), rows)

    @classmethod
    def fit_pairs(
        cls, pieces: Pieces, n_pieces: int, few: NDArray[np.bool_], like: Self | None = None
    ) -> Self | None:
        """Fit a coarse tree of the pairs that have a feature of the mask `few` (d,), if any.

        Its `nats` are the excess of -log p over its mean given the parent's bin, and 0 below this
        mean. They are 0 for a feature outside of `few` whose parent is outside, too. If a tree of
        this sort is given as `like`, `few` has no influence: the parents, the number of rows that
        count, and the features whose nats are 0 are those of `like`.
        """
        if like is None and not few.any():
            return None
        if like is None:
            tree = cls.fit(pieces, n_pieces, most=COARSE_BINS, few=few)
            counts = few | few[tree.parents]
        else:
            tree = cls.fit(pieces, n_pieces, like.parents, like.rows, COARSE_BINS)
            counts = np.logical_or.reduce(like.nats != 0.0, axis=(0, 2))
        nats = np.zeros_like(tree.nats)
        for j in np.flatnonzero(counts):
            of_feature = tree.nats[:, j, : int(tree.bins[j].max()) + 1]  # (K, bins)
            mean = (np.exp(-of_feature) * of_feature).sum(axis=1, keepdims=True)
            nats[:, j, : of_feature.shape[1]] = np.maximum(of_feature - mean, 0.0)
        return replace(tree, nats=nats, on_pieces=None)

    def __call__(self, pieces: Pieces) -> Float64:
        """Return the nats of rows with `pieces` (n, d), (n,), or of one row (d,)."""
        nats: Float64 = self.of_features(pieces).sum(axis=-1)
        return nats

    def of_features(self, pieces: Pieces) -> Float64:
        """Return the nats of each feature, in the shape of `pieces`, (n, d) or (d,)."""
        bins = self._bin_of.take(pieces)
        cells = bins.take(self.parents, axis=-1)
        cells *= self.nats[0].size
        cells += bins
        cells += self._start
        return self._nats.take(cells)

    def sample(self, n: int, rng: np.random.Generator, unseen: bool = True) -> Pieces:
        """Draw the pieces (n, d) of n rows.

        Without `unseen`, a pair of bins that did not occur is not drawn. A tree that is fitted to
        draws takes each drawn pair for one that occurred. With draws of unseen pairs it would
        therefore forget, update by update, which pairs are usual.
        """
        d, n_pieces = self.bins.shape
        drawn = np.zeros((n, d), np.int64)  # bins
        done = np.zeros(d, bool)
        while not done.all():
            for j in np.flatnonzero(
                ~done & (done[self.parents] | (self.parents == np.arange(d)))
            ).tolist():
                of_parent = drawn[:, self.parents[j]]
                ends = self._given_parent(j, unseen).cumsum(axis=1)[of_parent]
                even = _evenly_spaced(of_parent, rng)[:, None]
                drawn[:, j] = (ends < even * ends[:, -1:]).sum(axis=1)
                done[j] = True
        pieces = np.empty_like(drawn)
        on_pieces = np.ones((d, n_pieces)) if self.on_pieces is None else self.on_pieces
        for feature, (bins, bin_of) in enumerate(zip(self.bins, drawn.T, strict=True)):
            ends = np.concatenate([[0.0], on_pieces[feature].cumsum(dtype=np.float64)])
            first = ends[bins.searchsorted(bin_of)]
            end = ends[bins.searchsorted(bin_of, "right")]
            even = _evenly_spaced(bin_of, rng)
            place = ends.searchsorted(first + even * (end - first), "right") - 1
            pieces[:, feature] = feature * n_pieces + np.minimum(place, n_pieces - 1)
        return pieces

    def _given_parent(self, j: int, unseen: bool) -> Float64:
        """Return p (K, width) of the bins of feature j for each bin of its parent, up to a factor.

        Without `unseen`, the rows with which the table started are subtracted.
        """
        p = np.exp(-self.nats[:, j, : int(self.bins[j].max()) + 1].astype(np.float64))
        parent = self.parents[j]
        if unseen or self.on_pieces is None or parent == j:
            return p
        prior = _prior_rows(np.bincount(self.bins[j], self.on_pieces[j]))
        of_parent = np.bincount(self.bins[parent], self.on_pieces[parent], len(p))[:, None]
        seen = p * (of_parent + prior.sum()) - prior
        seen = np.where(seen > HALF_A_ROW, seen, 0.0)
        return np.where(seen.any(axis=1, keepdims=True), seen, p)

    def to_tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, each beginning with `prefix`."""
        arrays = {prefix + name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def from_tensors(cls, prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Self | None:
        """Return the tree on which `to_tensors` was called; None if there is none."""
        if prefix + ARRAYS[0] not in tensors:
            return None
        bins, parents, nats = (tensors[prefix + name] for name in ARRAYS[:3])
        return cls(bins, parents, nats, tensors.get(prefix + ARRAYS[3]))


def _evenly_spaced(groups: NDArray[np.int64], rng: np.random.Generator) -> Float64:
    """Return numbers (n,) from 0 to 1, evenly spaced within each of the `groups` (n,), shuffled.

    Draws made from them have each value about as often as its probability says (systematic
    sampling), so a pair that occurred once is not lost by chance.
    """
    order = rng.permutation(len(groups))
    order = order[groups[order].argsort(kind="stable")]
    sizes = np.bincount(groups)
    places = np.arange(len(groups)) - np.repeat(sizes.cumsum() - sizes, sizes)
    even = np.empty(len(groups))
    even[order] = (places + np.repeat(rng.random(len(sizes)), sizes)) / np.repeat(sizes, sizes)
    return even


def _prior_rows(counts: NDArray[Any]) -> Float64:
    """Return the rows (bins,) with which each table of a feature starts; `counts` are its rows."""
    marginal = counts + 0.5
    return PRIOR_ROWS * len(counts) * marginal / marginal.sum()


def few_valued(x: Array) -> NDArray[np.bool_]:
    """Return the mask (d,) of the features of vectors x (n, d) with few different values.

    These are at most BINS, and each occurs at least twice on average.
    """
    most = min(BINS, len(x) // 2)
    return np.array([len(np.unique(column)) <= most for column in x.T], bool)


def _bins(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the bin of each piece of a feature, (P,), ascending; `counts` (P,) are its rows.

    Each piece that has rows is a bin. If these are more than `most`, neighbours are joined to bins
    of about equally many rows. A piece without rows belongs to the bin after it: of several equal
    knots, only the last one begins a piece with rows.
    """
    seen = counts > 0
    bins = np.arange(seen.sum())
    if len(bins) > most:
        middle = (counts.cumsum() - 0.5 * counts)[seen]
        bins = np.unique((middle * most / counts.sum()).astype(np.int64), return_inverse=True)[1]
    return bins[np.minimum(seen.cumsum() - seen, len(bins) - 1)]


def _tree(codes: NDArray[np.int64], few: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the parent of each feature (d,): the tree with the most mutual information.

    `codes` (n, d) are bins. At least one feature of each pair in the tree is in the mask `few`
    (d,). What n rows of two unrelated features may show by chance is subtracted from the mutual
    information of each pair. 2 n times that is chi-squared with `freedom` degrees; its mean plus
    three deviations is subtracted. A pair with nothing left is not joined.
    """
    n, d = codes.shape
    gain = np.zeros((d, d))
    widths = codes.max(axis=0) + 1
    for i in range(d):
        for j in np.flatnonzero(few[:i] | few[i]).tolist():
            both = _pair_counts(codes[:, i], codes[:, j], int(widths[i]), int(widths[j])) / n
            unrelated = both.sum(axis=1, keepdims=True) * both.sum(axis=0)
            occurs = both > 0.0
            nats = float((both[occurs] * np.log(both[occurs] / unrelated[occurs])).sum())
            freedom = (widths[i] - 1) * (widths[j] - 1)
            gain[i, j] = gain[j, i] = nats - (freedom + 3.0 * math.sqrt(2.0 * freedom)) / (2.0 * n)
    parents, best, free = np.arange(d, dtype=np.int64), np.zeros(d), np.ones(d, bool)
    for _ in range(d):  # Prim's algorithm
        j = int(np.where(free, best, -1.0).argmax())
        free[j] = False
        closer = free & (gain[j] > best)
        best[closer], parents[closer] = gain[j, closer], j
    return parents


def _pair_counts(
    a: NDArray[np.int64], b: NDArray[np.int64], height: int, width: int
) -> NDArray[np.int64]:
    """Return how often each pair of the bins `a` (n,) and `b` (n,) occurs, (height, width)."""
    return np.bincount(a * width + b, minlength=height * width).reshape(height, width)
