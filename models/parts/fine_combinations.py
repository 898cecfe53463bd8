"""Linear combinations of features that vary far less than the features themselves.

Examples are two sensors that measure the same, or a total and its parts: the features' common
variation is a hundred times as wide as their differences. A density fitted to few vectors has
nearly round components and does not see such differences. The combinations are therefore features
of their own, each divided by its own deviation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.marginals import within_reach

FINE = 0.1  # a combination of features with deviation 1 is fine if its deviation is below this
MOST = 8  # the most combinations, the finest first
LEAST = 1e-3  # the least deviation of a combination: smaller ones count as this one
STILL = 0.01  # a feature with a smaller deviation is in no combination
NARROW = 0.5  # a feature spans decades if its middle half is narrower, in deviations
# A drawn vector is moved along a combination only if small steps suffice: when the features that
# may move do so by 1, the combination changes by at least this many of its deviations.
WEAKEST = 1.0
HOLDS = 2.0  # the largest root mean square of a combination in vectors in which it holds
ROWS_A_FEATURE = 10  # with fewer rows the finest combinations are chance


@dataclass(frozen=True)
class FineCombinations:
    """m combinations of d scaled features x: `inward` (m, d) times (x - `origin` (d,)).

    Each combination has deviation 1. `outward` (m, d) is how features move if a combination moves
    by 1.
    """

    origin: Array
    inward: Array
    outward: Array

    @classmethod
    def fit(
        cls, x: Array, *, enough: int = ROWS_A_FEATURE, among: NDArray[np.bool_] | None = None
    ) -> Self | None:
        """Fit to scaled vectors x (n, d); None if nothing is fine.

        It is also None with fewer than `enough` distinct rows for each feature. The combinations
        are the last principal directions of the features, or of the features in the mask `among`
        (d,), each divided by its deviation. Constants, flags and features that hardly vary are left
        out.
        """
        n, d = x.shape
        clipped = within_reach(x).astype(np.float64)
        unfit = ((clipped == clipped.min(axis=0)) | (clipped == clipped.max(axis=0))).all(axis=0)
        unfit |= clipped.std(axis=0) < STILL
        used = np.flatnonzero(~unfit if among is None else ~unfit & among)
        if len(used) < 2 or len(np.unique(clipped, axis=0)) < enough * d:
            return None
        origin = clipped.mean(axis=0)
        centred = clipped[:, used] - origin[used]
        spread = np.sqrt(np.square(centred).mean(axis=0))
        variances, axes = np.linalg.eigh((centred / spread).T @ (centred / spread) / n)
        m = min(MOST, int((variances < FINE**2).sum()))
        if not m:
            return None
        inward = np.zeros((m, d))
        unit = np.maximum(np.sqrt(np.maximum(variances[:m], 0.0)), LEAST)
        inward[:, used] = (axes[:, :m] / spread[:, None] / unit).T
        # Only features whose values rarely repeat may move, so that whole numbers stay whole.
        # `rcond` keeps a combination of other features from being moved by rounding errors.
        moving = inward * continuous(x)
        strongest = max(float(np.linalg.norm(moving, 2)), WEAKEST)
        outward = np.linalg.pinv(moving, rcond=WEAKEST / strongest).T
        return cls(*(a.astype(np.float32) for a in (origin, inward, outward)))

    def __call__(self, x: Array) -> Array:
        """Return the combinations (n, m) of vectors x (n, d) within REACH; (m,) for one vector.

        asinh shrinks their tails.
        """
        return np.arcsinh(np.dot(x - self.origin, self.inward.T))

    def holds(self, x: Array) -> bool:
        """Return whether scaled vectors x (n, d) have the combinations, too."""
        combinations = np.dot(within_reach(x) - self.origin, self.inward.T)
        return bool((np.sqrt(np.square(combinations).mean(axis=0)) < HOLDS).all())

    def with_drawn_combinations(
        self, x: Array, rng: np.random.Generator, spread: Array | float = 1.0
    ) -> Array:
        """Return x (n, d), drawn from another model, moved until its combinations are usual.

        `spread` (m,) are their deviations, which are below 1 if a combination varies less than
        LEAST.
        """
        combinations = rng.standard_normal((len(x), len(self.inward)), dtype=np.float32)
        return self.with_combinations(x, combinations * np.float32(spread))

    def with_combinations(self, x: Array, wanted: Array) -> Array:
        """Return x (n, d) moved so that its combinations, before asinh, are `wanted` (n, m)."""
        combinations = np.dot(x - self.origin, self.inward.T)
        return x + np.dot(wanted - combinations, self.outward)

    def filled(self, x: Array, hidden: NDArray[np.bool_], variances: Array) -> Array:
        """Return x (n, d) whose `hidden` (n, d) values agree with the combinations, too.

        The hidden values are estimates with the `variances` (d,). A Kalman update moves them until
        the combinations are usual. The other values stay.
        """
        m, d = self.inward.shape
        free = hidden * variances
        pairs = (self.inward[:, None] * self.inward).reshape(m * m, d)
        spread = (free @ pairs.T).reshape(-1, m, m) + np.eye(m)
        combinations = np.dot(within_reach(x) - self.origin, self.inward.T)
        update = np.linalg.solve(spread, combinations[:, :, None])[:, :, 0] @ self.inward
        return (x - free * update).astype(np.float32)

    @property
    def moving(self) -> NDArray[np.bool_]:
        """The mask (d,) of the features that `with_drawn_combinations` moves."""
        return (self.outward != 0.0).any(axis=0)

    def distributed(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distribute the `shares` (n, m) of the combinations over the features, (n, d)."""
        size = np.abs(self.inward).astype(np.float64)
        return shares @ (size / size.sum(axis=1, keepdims=True))

    def to_tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, each beginning with `prefix`."""
        return {prefix + f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Self | None:
        """Return the combinations that `to_tensors` wrote; None if there are none."""
        if prefix + "inward" not in tensors:
            return None
        return cls(*(tensors[prefix + f.name] for f in fields(cls)))


def continuous(x: Array) -> NDArray[np.bool_]:
    """Return the features of x (n, d) whose values rarely repeat, as a mask (d,)."""
    return np.array([2 * len(np.unique(column)) > len(x) for column in x.T])


def over_decades(x: Array) -> NDArray[np.bool_]:
    """Return the mask (d,) of the features of scaled vectors x (n, d) that span decades.

    A continuous feature spans decades if its middle half is narrower than NARROW deviations. The
    middle half is 1.35 deviations wide for a normal feature, and 0.5 for a log-normal feature over
    three decades.
    """
    low, high = np.quantile(x, (0.25, 0.75), axis=0)
    return continuous(x) & (high - low < NARROW * x.std(axis=0))
