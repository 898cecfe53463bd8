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
COARSE = 20  # the same for the tree of `fit_misfits`
CELLS = 65_536  # the most probabilities in all tables together
ROWS_A_BIN = 10  # with fewer rows in a bin, the trees of the folds have other probabilities
PSEUDO = 0.1  # rows that each bin of a feature counts for beside those seen with the parent's bin
ARRAYS = ("bins", "parents", "nats")  # the names of the arrays in an artifact

Pieces = NDArray[np.intp]
"""The pieces of the marginal map on which values lie, as `Marginals.pieces` counts them."""


@dataclass(frozen=True)
class FeatureTree:
    """Probabilities p(bin of a feature | bin of its parent), which together form a tree.

    Chow & Liu, Approximating discrete probability distributions with dependence trees, 1968. A bin
    is one or more pieces of a feature's marginal map: `bins` (d, P) is the bin of each piece.
    `parents` (d,) is the parent of each feature, itself for a root. `nats` (K, d, K) is -log p
    for each bin of the parent, each feature, and each bin of the feature. A tree that was fitted
    and not loaded has the number of its `rows`.
    """

    bins: NDArray[np.int64]
    parents: NDArray[np.int64]
    nats: NDArray[np.float32]
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
        of: int,
        parents: NDArray[np.int64] | None = None,
        rows: int | None = None,
        most: int = BINS,
        few: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Fit to the `pieces` (n, d) of rows; a feature has `of` pieces and at most `most` bins.

        There is at most one bin for ROWS_A_BIN rows. `parents` fix the tree. Otherwise it joins
        only pairs of which one is in the mask `few` (d,), if that is given. The n rows count as
        `rows`, if given. Fewer rows make a pair of bins that did not occur more likely, so that
        another tree could not calibrate the scores of this one.
        """
        n, d = pieces.shape
        rows = rows or n
        most = max(2, min(most, rows // ROWS_A_BIN, math.isqrt(CELLS // d)))
        counts = np.bincount(pieces.ravel(), minlength=d * of).reshape(d, of)
        bins = np.stack([_bins(own, most) for own in counts])
        codes = bins.ravel().take(pieces)
        if parents is None:
            parents = _tree(codes, np.ones(d, bool) if few is None else few)
        k = int(bins.max()) + 1
        nats = np.zeros((k, d, k), np.float32)
        for j, parent in enumerate(parents):
            width = int(bins[j].max()) + 1
            own = np.bincount(codes[:, j], minlength=width) + 0.5
            own /= own.sum()
            given = PSEUDO * width * own + np.zeros((k, 1))
            if parent != j:
                given += _together(codes[:, parent], codes[:, j], k, width) * (rows / n)
            nats[:, j, :width] = -np.log(given / given.sum(axis=1, keepdims=True))
        return cls(bins, parents, nats, rows)

    @classmethod
    def fit_misfits(
        cls, pieces: Pieces, of: int, few: NDArray[np.bool_], like: Self | None = None
    ) -> Self | None:
        """Fit a coarse tree of the pairs that have a feature of the mask `few` (d,), if any.

        Its `nats` are what -log p exceeds its mean by, given the parent's bin, and 0 below the
        mean. They are 0 for a feature in no such pair, unless it is in the mask itself. Such a tree
        `like` fixes the parents, the rows that n rows count as, and what is 0.
        """
        if like is None and not few.any():
            return None
        if like is None:
            tree = cls.fit(pieces, of, most=COARSE, few=few)
            counts = few | few[tree.parents]
        else:
            tree = cls.fit(pieces, of, like.parents, like.rows, COARSE)
            counts = np.array([like.nats[:, j].any() for j in range(len(few))])
        nats = np.zeros_like(tree.nats)
        for j in np.flatnonzero(counts):
            own = tree.nats[:, j, : int(tree.bins[j].max()) + 1]
            mean = (np.exp(-own) * own).sum(axis=1, keepdims=True)
            nats[:, j, : own.shape[1]] = np.maximum(own - mean, 0.0)
        return replace(tree, nats=nats)

    def __call__(self, pieces: Pieces) -> Float64:
        """Return the nats of rows with `pieces` (n, d), (n,), or of one row (d,)."""
        nats: Float64 = self.of_features(pieces).sum(axis=-1)
        return nats

    def of_features(self, pieces: Pieces) -> Float64:
        """Return the nats of each feature, in the shape of `pieces`, (n, d) or (d,)."""
        own = self._bin_of.take(pieces)
        cells = own.take(self.parents, axis=-1)
        cells *= self.nats[0].size
        cells += own
        cells += self._start
        return self._nats.take(cells)

    def sample(self, n: int, rng: np.random.Generator) -> Pieces:
        """Draw the pieces (n, d) of n rows; a bin's pieces are equally likely."""
        d, of = self.bins.shape
        drawn = np.zeros((n, d), np.int64)
        done = np.zeros(d, bool)
        while not done.all():
            for j in np.flatnonzero(~done & (done[self.parents] | (self.parents == np.arange(d)))):
                p = np.exp(-self.nats[:, j, : int(self.bins[j].max()) + 1].astype(np.float64))
                ends = p.cumsum(axis=1)[drawn[:, self.parents[j]]]
                drawn[:, j] = (ends < rng.random((n, 1)) * ends[:, -1:]).sum(axis=1)
                done[j] = True
        pieces = np.empty_like(drawn)
        for column, (bins, own) in enumerate(zip(self.bins, drawn.T, strict=True)):
            first, last = bins.searchsorted(own), bins.searchsorted(own, "right")
            pieces[:, column] = (
                column * of + first + (rng.random(n) * (last - first)).astype(np.int64)
            )
        return pieces

    def to_tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, each beginning with `prefix`."""
        return {prefix + name: getattr(self, name) for name in ARRAYS}

    @classmethod
    def from_tensors(cls, prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Self | None:
        """Return the tree on which `to_tensors` was called; None if there is none."""
        if prefix + ARRAYS[0] not in tensors:
            return None
        bins, parents, nats = (tensors[prefix + name] for name in ARRAYS)
        return cls(bins, parents, nats)


def few_valued(x: Array) -> NDArray[np.bool_]:
    """Return the mask (d,) of the features of vectors x (n, d) with at most BINS different values.

    Each value must occur twice on average.
    """
    most = min(BINS, len(x) // 2)
    return np.array([len(np.unique(column)) <= most for column in x.T], bool)


def _bins(counts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the bin of each piece of a feature, (P,), ascending; `counts` (P,) are its rows.

    Each piece that has rows is a bin, or bins have about equally many rows where pieces are more
    than `most`. A piece without rows belongs to the bin after it: equal knots begin such pieces,
    and the piece of their value comes last.
    """
    seen = counts > 0
    bins = np.arange(seen.sum())
    if len(bins) > most:
        middle = (counts.cumsum() - 0.5 * counts)[seen]
        bins = np.unique((middle * most / counts.sum()).astype(np.int64), return_inverse=True)[1]
    return bins[np.minimum(seen.cumsum() - seen, len(bins) - 1)]


def _tree(codes: NDArray[np.int64], few: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the parent of each feature (d,): the tree of most mutual information.

    Of each pair in the tree one is in the mask `few` (d,). A pair counts only what exceeds the
    mutual information of as many unrelated rows. 2 n times that is chi-squared with `freedom`
    degrees; the bound is its mean plus three deviations.
    """
    n, d = codes.shape
    gain = np.zeros((d, d))
    widths = codes.max(axis=0) + 1
    for i in range(d):
        for j in np.flatnonzero(few[:i] | few[i]).tolist():
            both = _together(codes[:, i], codes[:, j], int(widths[i]), int(widths[j])) / n
            apart = both.sum(axis=1, keepdims=True) * both.sum(axis=0)
            some = both > 0.0
            nats = float((both[some] * np.log(both[some] / apart[some])).sum())
            freedom = (widths[i] - 1) * (widths[j] - 1)
            gain[i, j] = gain[j, i] = nats - (freedom + 3.0 * math.sqrt(2.0 * freedom)) / (2.0 * n)
    parents, best, free = np.arange(d, dtype=np.int64), np.zeros(d), np.ones(d, bool)
    for _ in range(d):  # Prim's algorithm
        j = int(np.where(free, best, -1.0).argmax())
        free[j] = False
        closer = free & (gain[j] > best)
        best[closer], parents[closer] = gain[j, closer], j
    return parents


def _together(
    rows: NDArray[np.int64], columns: NDArray[np.int64], height: int, width: int
) -> NDArray[np.int64]:
    """Return how often each pair of bins occurs, (height, width)."""
    return np.bincount(rows * width + columns, minlength=height * width).reshape(height, width)
