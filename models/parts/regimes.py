"""The regimes of a version: the number, size, typical vector and boundary of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.lineage import KnownRegime
from models.parts.network import Network

NONE = 0  # the number for a row that no regime explains
RIDGE = 1e-3  # added to the shared covariance, relative to its mean variance


@dataclass(frozen=True, slots=True)
class Regime:
    """One mode of normal behaviour.

    A regime keeps its `number` from version to version. `size` vectors of it were learned, a
    `share` of all; `seen` is the latest experience that had any. `typical` (d,), in the client's
    units, is a vector from its middle. It is drawn from the generator and never a vector that a
    client sent. `about` is what the lineage says of the regime.
    """

    number: int
    size: int
    share: float
    seen: int
    typical: Array
    about: KnownRegime

    @classmethod
    def from_lineage(cls, known: Sequence[KnownRegime], typical: Array) -> tuple[Self, ...]:
        """Return the regimes of a lineage; `typical` (R, d) are their typical vectors."""
        total = sum(regime.size for regime in known)
        return tuple(
            cls(regime.number, regime.size, regime.size / total, regime.seen, x, regime)
            for regime, x in zip(known, typical, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Boundaries:
    """A linear discriminant, `weight` (h, R) and `bias` (R,), that finds the nearest of R regimes.

    The regimes are Gaussians with one shared covariance over the h units f of the encoder's last
    hidden layer (Lee et al., A simple unified framework for detecting out-of-distribution samples,
    2018). The nearest regime has the largest f . Sigma^-1 mu_r - mu_r . Sigma^-1 mu_r / 2. The size
    of a regime plays no role. `typical` (R, k) are the codes of the typical vectors.
    """

    weight: Array
    bias: Array
    typical: Array

    @classmethod
    def fit(cls, network: Network, x: Array, index: NDArray[np.int64], drawn: Array) -> Self:
        """Fit to scaled vectors x (n, d) with regime indices `index` (n,); each of 0..R-1 occurs.

        `drawn` (m, d) come from the generator. A regime's mean code is that of the drawn vectors in
        the regime, or of the vectors of x if none was drawn. Its typical code is the code of the
        drawn vector nearest to that mean.
        """
        features = network.hidden(x).astype(np.float64)
        means = group_means(features, index)
        within = features - means[index]
        covariance = within.T @ within / len(features)
        ridge = RIDGE * np.trace(covariance) / len(covariance) + 1e-9
        weight = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), means.T)  # (h, R)
        bias = -0.5 * (means.T * weight).sum(axis=0)
        linear = cls(weight.astype(np.float32), bias.astype(np.float32), np.empty((0, 0), "f4"))
        codes, near = network.encode(drawn)[0], linear.nearest(network, drawn)
        middles = group_means(network.encode(x)[0], index)
        for r in np.unique(near):
            middles[r] = codes[near == r].mean(axis=0)
        distances = np.square(middles[:, None] - codes[None]).sum(axis=2)  # (R, m)
        return cls(linear.weight, linear.bias, codes[distances.argmin(axis=1)])

    def nearest(self, network: Network, x: Array) -> NDArray[np.int64]:
        """Return the index of the nearest regime of each scaled vector of x (n, d), (n,)."""
        # A matrix product of finite numbers may raise a floating-point flag in padding that it does
        # not use.
        with np.errstate(invalid="ignore"):
            likely = network.hidden(x) @ self.weight + self.bias  # (n, R)
        return likely.argmax(axis=1)

    def to_tensors(self) -> dict[str, Array]:
        """Return the arrays in the form that a version's `memory` stores."""
        return {f"regimes.{name}": getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_tensors(cls, memory: Mapping[str, Array]) -> Self | None:
        """Return the boundaries that `to_tensors` wrote; None if there are none."""
        if "regimes.weight" not in memory:
            return None
        return cls(*(memory[f"regimes.{name}"] for name in cls.__slots__))


def group_means(values: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    """Return the mean of the rows of each group, (groups, columns); `index` is each row's group."""
    return np.stack([values[index == group].mean(axis=0) for group in range(index.max() + 1)])
