"""Views that keep the components of earlier views. They are not fitted to drawn vectors again."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from models.arrays import Array, Float64
from models.parts.components import Components
from models.parts.views import Views


@dataclass(frozen=True, slots=True)
class CarriedViews:
    """The components of earlier views, and those of new vectors, in one space.

    `fresh` are the views of the new vectors alone. `drawn_in` and `normal` are the earlier
    components in the space of the fresh codes. In the joined views they weigh `share_old`.
    """

    fresh: Views
    drawn_in: Components
    normal: Components
    share_old: float

    @classmethod
    def fit(
        cls, before: Views, drawn: Array, new: Array, seed: int, like: Views | None = None
    ) -> Self:
        """Fit to new scaled vectors (n, d) and to `drawn` (m, d), which are drawn from `before`.

        The drawn vectors determine only the deviations of the features and the directions of the
        codes. Components or knots fitted to drawn vectors would be wider than the earlier ones.
        """
        share_old = len(drawn) / (len(drawn) + len(new))
        marginals = before.marginals.joined(new, share_old)
        fresh = Views.fit(new, seed, like, among=drawn, marginals=marginals)

        def seen(z: Float64) -> Float64:
            return fresh.seen(before.inverse(z)).astype(np.float64)

        def scored(y: Float64) -> Float64:
            return fresh.scored(before.unscored(y)).astype(np.float64)

        return cls(
            fresh,
            before.drawn_in.components_in(fresh.drawn_in, seen),
            before.normal.components_in(fresh.normal, scored),
            share_old,
        )

    @property
    def views(self) -> Views:
        """The views of the old and the new vectors."""
        return self._with(self.fresh)

    def refitted(self, new: Array) -> Views:
        """Return the views with `new` (n, d) in place of the new vectors, fitted in one step."""
        fresh = self.fresh
        again = replace(
            fresh,
            drawn_in=fresh.drawn_in.refitted(fresh.seen(new)),
            normal=fresh.normal.refitted(fresh.scored(new)),
        )
        return self._with(again)

    def _with(self, fresh: Views) -> Views:
        return replace(
            fresh,
            drawn_in=fresh.drawn_in.beside(self.drawn_in, self.share_old),
            normal=fresh.normal.beside(self.normal, self.share_old),
        )
