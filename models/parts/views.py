"""Two views of scaled vectors, each with a density, which complement the network's own score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.data_density import WHITENED, DataDensity
from models.parts.feature_tree import FEATURES, FeatureTree, few_valued
from models.parts.fine_combinations import ROWS_A_FEATURE, FineCombinations, over_decades
from models.parts.marginals import REACH, Marginals, within_reach

LEAST = 1e-6  # a feature with a smaller deviation is constant
# Smaller deviations in the view `shrunk` count as this one. A pixel that is dark in nearly all
# pictures would otherwise outweigh the rest, and more so after each experience: hardly any drawn
# vector has it bright, so its deviation falls, and in its unit old components grow wide.
FAINT = 0.1
# The same bound for pictures: pixels, which lie between 0 and 1, keep their common unit.
COMMON_UNIT = 1.0
# A combination whose draws have a smaller deviation is an exact relation, such as a copy.
EXACT, COMPARED = 0.1, 1_000
RIDGES = 0.01  # a smaller deviation comes only from the ridge that the density adds to variances
QUARTER = 0.3186  # a quarter of normal values lies within this many deviations of the mean
MARGINAL_ARRAYS = ("values", "scores", "unit")  # the arrays of `Marginals` in an artifact
_FURTHEST = float(np.arcsinh(REACH))


class Inherited(NamedTuple):
    """What new views take from earlier ones.

    `drawn` (m, d) are vectors drawn from the earlier views, and `values` (m, d) from their tree.
    `marginals` are already fitted to the old and the new vectors. Without combinations `fine`,
    those of the drawn and the new vectors are fitted.
    """

    drawn: Array
    marginals: Marginals
    fine: FineCombinations | None
    values: Array


@dataclass(frozen=True)
class Views:
    """Two views of scaled vectors, and a density of each.

    The view `shrunk` is asinh(x) times `unit` (d,), and shows gaps between modes. asinh shrinks the
    tails. `unit` gives each feature a deviation of 1, or less if the feature hardly varies. The
    combinations `fine`, if any, are further features of that view. The view `normal` consists of
    normal scores, and shows anomalies in the tail of a skewed feature. Its own combinations,
    `fine_normal`, are nearly constant ratios of features that span decades. The `tree` knows which
    values occur together; it is None if the features are too many. `pairs` is a coarse tree of the
    pairs that have a feature of few values; None if there is no such feature.
    """

    unit: Array
    shrunk: DataDensity
    marginals: Marginals
    normal: DataDensity
    fine: FineCombinations | None = None
    fine_normal: FineCombinations | None = None
    tree: FeatureTree | None = None
    pairs: FeatureTree | None = None

    @property
    def has_many_features(self) -> bool:
        """Whether there are so many features that the largest normal score is a part."""
        return len(self.unit) > WHITENED

    @property
    def n_more(self) -> int:
        """How many arrays `misfits` returns beside the five that every version has."""
        return len(self.trees) or int(self.has_many_features)

    @property
    def trees(self) -> tuple[FeatureTree, ...]:
        """The tree and the coarse tree of pairs, without those that are None."""
        return tuple(tree for tree in (self.tree, self.pairs) if tree)

    @classmethod
    def fit(
        cls,
        x: Array,
        seed: int,
        like: Self | None = None,
        inherited: Inherited | None = None,
        faint: float = FAINT,
    ) -> Self:
        """Fit to scaled vectors x (n, d).

        If other views `like` are given, there are fine combinations and pairs only if `like` has
        some. The features' scales and the space of the codes are fitted to x and the `inherited`
        vectors together. In the view `shrunk`, a deviation below `faint` counts as `faint`.
        """
        old_and_new = np.concatenate([inherited.drawn, x]) if inherited else x
        enough = ROWS_A_FEATURE if like is None else 0
        fine = None
        if like is None or like.fine:
            kept = inherited.fine if inherited else None
            fine = kept or FineCombinations.fit(old_and_new, enough=enough)
        spread = np.arcsinh(within_reach(old_and_new)).std(axis=0)
        spread = np.where(spread < LEAST, 1.0, np.maximum(spread, faint))
        unit = (1.0 / spread).astype(np.float32)
        marginals = inherited.marginals if inherited else Marginals.fit(old_and_new)
        fine_normal = None
        if like is None or like.fine_normal:
            decades = over_decades(within_reach(old_and_new))
            normal = marginals(old_and_new).astype(np.float32)
            fine_normal = FineCombinations.fit(normal, enough=enough, among=decades)

        def density(view: Callable[[Array], Array]) -> DataDensity:
            return DataDensity.fit(view(x), seed, within=view(old_and_new) if inherited else None)

        views = cls(
            unit,
            density(lambda x: _to_shrunk(x, unit, fine)),
            marginals,
            density(lambda x: _with_fine(marginals(x).astype(np.float32), fine_normal)),
            fine,
            fine_normal,
        )
        if len(unit) > FEATURES:
            return views
        for_trees = np.concatenate([inherited.values, x]) if inherited else x
        if like is None:
            return views.with_trees(for_trees, few_valued(for_trees))
        # A fold has the same parts as the serving views, and its rows count as many as theirs.
        rows = like.tree.rows if like.tree else None
        return replace(views, pairs=like.pairs).with_trees(for_trees, rows=rows)

    def with_trees(
        self, x: Array, few: NDArray[np.bool_] | None = None, rows: int | None = None
    ) -> Self:
        """Return these views with both trees fitted to scaled vectors x (n, d).

        `few` (d,) is the mask of the features of few values. Without it there are pairs only if
        these views have some. The n vectors count as `rows`, if given. If these views have a tree,
        features keep their parents, and the vectors count as the rows of this tree.
        """
        pieces = self.marginals.pieces(within_reach(x))
        n_pieces = self.marginals.values.shape[1] + 1
        parents = None
        if self.tree:
            parents, rows = self.tree.parents, self.tree.rows
        tree = FeatureTree.fit(pieces, n_pieces, parents, rows)
        if few is None:
            few = np.zeros(x.shape[1], bool)
        pairs = FeatureTree.fit_pairs(pieces, n_pieces, few, self.pairs)
        return replace(self, tree=tree, pairs=pairs)

    def from_shrunk(self, features: Float64) -> Array:
        """Return the scaled vectors (n, d) whose view `shrunk` is `features` (n, d or more)."""
        d = len(self.unit)
        x = np.sinh(np.clip(features[:, :d] / self.unit, -_FURTHEST, _FURTHEST)).astype(np.float32)
        if self.fine is None:
            return x
        combinations = np.sinh(np.clip(features[:, d:], -_FURTHEST, _FURTHEST))
        return self.fine.with_combinations(x, combinations)

    def to_normal(self, x: Array) -> Array:
        """Return the features of scaled vectors x (n, d) in the view `normal`, (n, d or more)."""
        return _with_fine(self.marginals(x).astype(np.float32), self.fine_normal)

    def from_normal(self, scores: Float64) -> Array:
        """Return the scaled vectors (n, d) whose view `normal` is `scores` (n, d or more)."""
        d = len(self.unit)
        normal: NDArray[Any] = scores[:, :d]
        if self.fine_normal is not None:
            combinations = np.sinh(np.clip(scores[:, d:], -_FURTHEST, _FURTHEST))
            normal = self.fine_normal.with_combinations(normal.astype(np.float32), combinations)
        return self.marginals.inverse(normal.astype(np.float64)).astype(np.float32)

    def to_shrunk(self, x: Array) -> Array:
        """Return the features of scaled vectors x (n, d) in the view `shrunk`, (n, d or more)."""
        return _to_shrunk(x, self.unit, self.fine)

    def refitted(self, x: Array) -> Self:
        """Return these views fitted in one step to similar scaled vectors x (n, d).

        A fold needs no more, because only a quarter of the vectors differ from those of these
        views.
        """
        marginals = Marginals.fit(x)
        shrunk = self.shrunk.refitted(self.to_shrunk(x))
        views = replace(self, shrunk=shrunk, marginals=marginals)
        views = replace(views, normal=self.normal.refitted(views.to_normal(x)))
        return views.with_trees(x) if self.tree else views

    def misfits(self, x: Array) -> tuple[Float64, ...]:
        """Return how badly scaled vectors x (n, d) fit both views: five to seven arrays (n,).

        They are -log p in each view, in nats; the distance from the nearest kernel centre in each
        view, in deviations of a feature; and -log p of the normal scores as if the features were
        independent, without its constant. The sixth is -log p of the values by the tree; with many
        features it is the largest normal score. The seventh is what `pairs` returns.
        """
        clipped = within_reach(x)
        pieces = self.marginals.pieces(clipped)
        normal = self.marginals.on_pieces(clipped, pieces).astype(np.float32)
        independent = np.float32(0.5) * np.vecdot(normal, normal)
        log_shrunk, distance_shrunk = self.shrunk.log_density_and_distance(self.to_shrunk(x))
        log, distance = self.normal.log_density_and_distance(_with_fine(normal, self.fine_normal))
        misfits = -log_shrunk, -log, distance_shrunk, distance, independent
        if self.tree:
            return (*misfits, *(tree(pieces) for tree in self.trees))
        return (*misfits, np.abs(normal).max(axis=1)) if self.has_many_features else misfits

    def distance(self, x: Array) -> Float64:
        """Return the third array of `misfits` alone."""
        return self.shrunk.log_density_and_distance(self.to_shrunk(x))[1]

    def distance_in_plane(self, x: Array) -> Float64:
        """Return the third array of `misfits` within the plane of the codes, (n,)."""
        return self.shrunk.distance_in_plane(self.to_shrunk(x))

    def misfits_of_one(self, x: Array) -> tuple[float, ...]:
        """Return the same as `misfits`, for one x (d,) whose values are all within `REACH`."""
        pieces = self.marginals.pieces(x)
        normal = self.marginals.on_pieces(x, pieces).astype(np.float32)
        shrunk = _clipped_to_shrunk(x, self.unit, self.fine)
        log_shrunk, distance_shrunk = self.shrunk.of_one(shrunk)
        log, distance = self.normal.of_one(_with_fine(normal, self.fine_normal))
        misfits = -log_shrunk, -log, distance_shrunk, distance, 0.5 * float(normal.dot(normal))
        if self.tree:
            return (*misfits, *(float(tree(pieces)) for tree in self.trees))
        return (*misfits, float(np.abs(normal).max())) if self.has_many_features else misfits

    def explain(self, x: Array) -> tuple[tuple[Float64, Float64], ...]:
        """Return for each view the contribution and the expected value of each feature.

        Both are (n, d): the contribution in nats, the expected value in scaled units. The third
        tuple is for `pairs`, if there are any: a feature and its parent share the nats.
        """
        d = x.shape[1]
        shares, shrunk = self.shrunk.explain(self.to_shrunk(x))
        shares_normal, normal = self.normal.explain(self.to_normal(x))
        expected_shrunk = np.sinh(np.clip(shrunk[:, :d] / self.unit, -_FURTHEST, _FURTHEST))
        expected = self.marginals.inverse(normal[:, :d])
        explained = (
            (_with_shares_of_fine(shares, self.fine, d), expected_shrunk),
            (_with_shares_of_fine(shares_normal, self.fine_normal, d), expected),
        )
        if self.pairs is None:
            return explained
        halves = 0.5 * self.pairs.of_features(self.marginals.pieces(within_reach(x)))
        contributions = halves.copy()
        np.add.at(contributions.T, self.pairs.parents, halves.T)
        return (*explained, (contributions, expected))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n scaled vectors, (n, d), from the view `normal`."""
        scores: NDArray[Any] = self.normal.sample(n, rng)[:, : len(self.unit)]
        if self.fine_normal is not None:
            scores = self.fine_normal.with_drawn_combinations(scores.astype(np.float32), rng)
        x = self.marginals.inverse(scores.astype(np.float64)).astype(np.float32)
        if self.fine is None:
            return x
        restored = self.fine.with_drawn_combinations(x, rng, self._spread_of_fine)
        if self.fine_normal is None:
            return restored
        # The second step could be small for large values of a feature and large for its small ones.
        # So features that span decades keep their values.
        return np.where(self.fine_normal.moving, x, restored)

    @property
    def _spread_of_fine(self) -> Array:
        """The deviations (m,) of the combinations `fine`: 1, or less if a relation is exact."""
        drawn = self.shrunk.sample(COMPARED, np.random.default_rng(0))[:, len(self.unit) :]
        # Half of the draws come from round kernels, which are too wide in such a direction.
        spread = np.quantile(np.abs(drawn - np.median(drawn, axis=0)), 0.25, axis=0) / QUARTER
        spread = np.where(spread < RIDGES, 0.0, spread)
        return np.where(spread < EXACT, spread, 1.0).astype(np.float32)

    def sample_values(self, n: int, rng: np.random.Generator, unseen: bool) -> Array:
        """Draw n scaled vectors, (n, d), from the tree, which these views must have.

        `unseen` is that of `FeatureTree.sample`.
        """
        assert self.tree is not None
        return self.marginals.at_pieces(self.tree.sample(n, rng, unseen))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays in the form that a version's `scoring` stores."""
        return {
            "views.unit": self.unit,
            **self.shrunk.to_tensors("views.drawn_in."),
            **{
                f"views.marginals.{name}": getattr(self.marginals, name) for name in MARGINAL_ARRAYS
            },
            **self.normal.to_tensors("views.normal."),
            **(self.fine.to_tensors("views.fine.") if self.fine else {}),
            **(self.fine_normal.to_tensors("views.fine_normal.") if self.fine_normal else {}),
            **(self.tree.to_tensors("views.tree.") if self.tree else {}),
            **(self.pairs.to_tensors("views.pairs.") if self.pairs else {}),
        }

    @classmethod
    def from_tensors(cls, scoring: Mapping[str, NDArray[Any]]) -> Self | None:
        """Return the views that `to_tensors` wrote; None if there are none."""
        if "views.unit" not in scoring:
            return None
        return cls(
            scoring["views.unit"],
            DataDensity.from_tensors("views.drawn_in.", scoring),
            Marginals(*(scoring[f"views.marginals.{name}"] for name in MARGINAL_ARRAYS)),
            DataDensity.from_tensors("views.normal.", scoring),
            FineCombinations.from_tensors("views.fine.", scoring),
            FineCombinations.from_tensors("views.fine_normal.", scoring),
            FeatureTree.from_tensors("views.tree.", scoring),
            FeatureTree.from_tensors("views.pairs.", scoring),
        )


def _to_shrunk(x: Array, unit: Array, fine: FineCombinations | None) -> Array:
    """Return scaled vectors x (n, d) in the view `shrunk`."""
    return _clipped_to_shrunk(within_reach(x), unit, fine)


def _clipped_to_shrunk(x: Array, unit: Array, fine: FineCombinations | None) -> Array:
    """Return vectors x (n, d), or one (d,), in the view `shrunk`; all values are within REACH."""
    shrunk: Array = np.arcsinh(x)
    shrunk *= unit
    return shrunk if fine is None else np.concatenate([shrunk, fine(x)], axis=-1)


def _with_fine(scores: Array, fine: FineCombinations | None) -> Array:
    """Return normal scores (n, d) or (d,), with their fine combinations appended, if any."""
    return scores if fine is None else np.concatenate([scores, fine(scores)], axis=-1)


def _with_shares_of_fine(shares: Float64, fine: FineCombinations | None, d: int) -> Float64:
    """Return the contributions of d features, (n, d), with their parts of the combinations."""
    return shares if fine is None else shares[:, :d] + fine.distributed(shares[:, d:])
