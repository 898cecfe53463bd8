"""The frozen map from a client's units to the network's.

It is fitted once, on a detector's first experience, and carried unchanged from version to
version: a scaler refitted on new data only would move every old vector and so erase the past.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Scaled values are left alone up to this many units and grow as a logarithm beyond it, so that
# one wild value can neither blow up a gradient nor hide the other features. It lies far out,
# because a later regime may well: where the map bends, the decoder's noise, learned in scaled
# units, is stretched in the client's, and replay blurs. Continuous, with a continuous slope, and
# invertible.
KNEE = 60.0


def squash(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x where |x| <= KNEE, and sign(x) (KNEE + log(1 + |x| - KNEE)) beyond it."""
    size = np.abs(x)
    if not x.size or size.max() <= KNEE:
        return x  # nearly always: logarithms cost more than all the rest of scaling
    beyond = size > KNEE
    squashed = x.copy()
    squashed[beyond] = np.copysign(KNEE + np.log1p(size[beyond] - KNEE), x[beyond])
    return squashed


def unsquash(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert `squash`."""
    excess = np.maximum(np.abs(y) - KNEE, 0.0)
    x: NDArray[np.float64] = np.clip(y, -KNEE, KNEE) + np.sign(y) * np.expm1(excess)
    return x


@dataclass(frozen=True, slots=True)
class Scaler:
    """Location and scale of each feature, (d,) float64 each; scale is never 0.

    >>> Scaler.fit(np.float32([[0, 5], [2, 5]])).scale.round(1)
    array([1., 1.])
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, X: Array, unit: bool = False) -> Self:
        """Fit on X (n, d): mean and deviation of the values within the middle 99.8 %.

        The outermost values are pulled in first, so that a handful of wild ones among the
        normals cannot flatten a feature. A constant feature gets scale 1. With `unit` all
        features share one map, onto [0, 1], as a Bernoulli likelihood needs.
        """
        values = X.astype(np.float64)
        if unit:
            spread = values.max() - values.min()
            ones = np.ones(X.shape[1])
            return cls(values.min() * ones, (spread or 1.0) * ones)
        low, high = np.quantile(values, (0.001, 0.999), axis=0)
        inner = np.clip(values, low, high)
        scale = inner.std(axis=0)
        # A deviation below float32's resolution of the values is rounding, not variation.
        constant = scale <= 1e-6 * np.abs(inner).max(axis=0)
        return cls(inner.mean(axis=0), np.where(constant, 1.0, scale))

    def transform(self, X: Array) -> Array:
        """Scale X (n, d) in the client's units; the answer is finite for every finite float32."""
        x = X - self.location
        x /= self.scale
        return squash(x).astype(np.float32)

    def transform_one(self, x: Array) -> Array | None:
        """Scale one x (d,); None where a value is not finite, or too far out to be sure quickly."""
        scaled = x - self.location
        scaled /= self.scale
        # No value is larger than the length; and that of what is not finite is not finite either.
        return scaled.astype(np.float32) if np.dot(scaled, scaled) <= KNEE * KNEE else None

    def inverse(self, Y: Array) -> Array:
        """Return scaled vectors Y (n, d) in the client's units, clipped to float32's range."""
        X = unsquash(Y.astype(np.float64)) * self.scale + self.location
        return np.clip(np.nan_to_num(X, copy=False), -3.4e38, 3.4e38).astype(np.float32)
