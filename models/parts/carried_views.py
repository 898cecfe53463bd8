"""Carries the components of earlier views to the next version without fitting them again."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from models.arrays import Array, Float64
from models.parts.components import Components
from models.parts.views import FAINT, Inherited, Views


@dataclass(frozen=True, slots=True)
class CarriedViews:
    """Views of new vectors, and the components of earlier views in the same space.

    `fresh` are the views of the new vectors alone. `shrunk` and `normal` are the earlier components
    over the codes of `fresh`. In the joined views the earlier components have the weight
    `share_old`. `values` (m, d) are scaled vectors drawn from the earlier tree, or from the earlier
    views if there is no tree.
    """

    fresh: Views
    shrunk: Components
    normal: Components
    share_old: float
    values: Array

    @classmethod
    def fit(
        cls,
        before: Views,
        drawn: Array,
        new: Array,
        seed: int,
        like: Views | None = None,
        faint: float = FAINT,
    ) -> Self:
        """Fit to new scaled vectors (n, d) and to `drawn` (m, d), which are drawn from `before`.

        The drawn vectors determine only the deviations of the features and the directions of the
        codes. Components or knots fitted to drawn vectors would be wider than the earlier ones.
        Drawn whole numbers do not show a fine combination, such as a total and its parts. So the
        earlier combinations are kept if they hold in the new vectors. `like` and `faint` are those
        of `Views.fit`.
        """
        share_old = len(drawn) / (len(drawn) + len(new))
        d = new.shape[1]
        fine = before.fine if before.fine and before.fine.holds(new) else None
        values = drawn
        if before.tree:
            rng = np.random.default_rng([seed, 15])
            values = before.sample_values(len(drawn), rng, unseen=False)
        inherited = Inherited(drawn, before.marginals.joined(new, share_old), fine, values)
        fresh = Views.fit(new, seed, like, inherited, faint)

        def to_fresh_shrunk(z: Float64) -> Float64:
            features = fresh.to_shrunk(before.from_shrunk(z)).astype(np.float64)
            if fine:
                features[:, d:] = z[:, d:]
            return features

        def to_fresh_normal(z: Float64) -> Float64:
            return fresh.to_normal(before.from_normal(z)).astype(np.float64)

        return cls(
            fresh,
            before.shrunk.components_in(fresh.shrunk, to_fresh_shrunk),
            before.normal.components_in(fresh.normal, to_fresh_normal),
            share_old,
            values,
        )

    @property
    def views(self) -> Views:
        """The views of the old and the new vectors."""
        return self._joined(self.fresh)

    def refitted(self, new: Array) -> Views:
        """Return the views with `new` (n, d) in place of the new vectors, fitted in one step."""
        fresh = self.fresh
        again = replace(
            fresh,
            shrunk=fresh.shrunk.refitted(fresh.to_shrunk(new)),
            normal=fresh.normal.refitted(fresh.to_normal(new)),
        )
        if fresh.tree:
            again = again.with_trees(np.concatenate([self.values, new]))
        return self._joined(again)

    def _joined(self, fresh: Views) -> Views:
        """Return the views `fresh` with the earlier components beside their own."""
        return replace(
            fresh,
            shrunk=fresh.shrunk.joined_with(self.shrunk, self.share_old),
            normal=fresh.normal.joined_with(self.normal, self.share_old),
        )
