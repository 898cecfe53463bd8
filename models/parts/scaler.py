"""The frozen map from a client's units to the network's.

It is fitted once, on a detector's first experience, and carried unchanged from version to
version: a scaler refitted on new data only would move every old vector and so erase the past.
"""

from dataclasses import dataclass, replace
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


MOST_KNEE = 1e4  # the furthest a knee goes: a network cannot tell what is near and further away
REACH = 20.0  # ranges of the middle half: what lies further out does not decide the scale
# Scale of a constant feature, in its value: that it moves at all is news, in whatever unit.
OF_CONSTANT = 1e-3

Float64 = NDArray[np.float64]


def squash(x: Float64, knee: Float64 | float = KNEE) -> Float64:
    """Return x where |x| <= knee, and sign(x) (knee + log(1 + |x| - knee)) beyond it.

    Each knee, one for all or (d,) for x (n, d), is at least KNEE.
    """
    size = np.abs(x)
    if not x.size or size.max() <= KNEE:
        return x  # nearly always: logarithms cost more than all the rest of scaling
    beyond = np.maximum(size - knee, 0.0)
    return np.where(beyond > 0.0, np.copysign(knee + np.log1p(beyond), x), x)


def unsquash(y: Float64, knee: Float64 | float = KNEE) -> Float64:
    """Invert `squash`."""
    excess = np.maximum(np.abs(y) - knee, 0.0)
    x: Float64 = np.clip(y, -knee, knee) + np.sign(y) * np.expm1(excess)
    return x


@dataclass(frozen=True, slots=True)
class Scaler:
    """Location and scale of each feature, (d,) float64 each; scale is never 0.

    `knee` (d,), in scaled units, is where the logarithm begins, where a later experience moved
    that; None where it is KNEE for every feature.

    >>> Scaler.fit(np.float32([[0, 5], [2, 5]])).scale.round(1)
    array([1., 0.])
    """

    location: Float64
    scale: Float64
    knee: Float64 | None = None

    @classmethod
    def fit(cls, X: Array, unit: bool = False) -> Self:
        """Fit on X (n, d): mean and deviation of the values in the middle.

        That is the middle 99.8 %, and of it what lies within REACH ranges of the middle half from
        the median: what is further out is pulled in first, so that a few wild values among the
        normals cannot flatten a feature. A constant feature gets a thousandth of its value, or 1.
        With `unit` all features share one map, onto [0, 1], as a Bernoulli likelihood needs.
        """
        values = X.astype(np.float64)
        if unit:
            spread = values.max() - values.min()
            ones = np.ones(X.shape[1])
            return cls(values.min() * ones, (spread or 1.0) * ones)
        low, high = middle(values)
        inner = np.clip(values, low, high)
        location, scale = inner.mean(axis=0), inner.std(axis=0)
        # A deviation below float32's resolution of the values is rounding, not variation.
        constant = scale <= 1e-6 * np.abs(inner).max(axis=0)
        value = np.where(location == 0.0, 1.0, OF_CONSTANT * np.abs(location))
        return cls(location, np.where(constant, value, scale))

    def reaching(self, X: Array, known: Float64, constant: NDArray[np.bool_]) -> Self:
        """Return the scaler that new normals X (n, d) fit into, too.

        Whatever this one maps to at most KNEE units keeps its place, so that all that was learned
        stays as it is: a knee moves out where X lies twice as far away as what was learned first,
        `known` (d, 2), its ends. A feature that was `constant` (d,) so far, at its location, takes
        its scale from what it is now.
        """
        apart = X - self.location
        low, high = middle(apart)
        moves = np.sqrt(np.square(np.clip(apart, low, high)).mean(axis=0))
        scale = np.where(constant, np.maximum(self.scale, moves), self.scale)
        reach = np.quantile(np.abs(apart), 0.99, axis=0) / scale
        before = np.abs(known - self.location[:, None]).max(axis=1) / scale
        far = reach > np.maximum(KNEE / 2.0, 2.0 * before)
        knee = np.where(far, np.minimum(4.0 * reach, MOST_KNEE), KNEE)
        knee = np.maximum(knee, self._knee)
        moved = bool((knee > KNEE).any())
        return replace(self, scale=scale, knee=knee if moved else None)

    def moved(self) -> dict[str, Float64]:
        """Return the knees as an artifact keeps them: nothing where none was moved."""
        return {} if self.knee is None else {"scaler.knee": self.knee}

    @property
    def _knee(self) -> Float64 | float:
        return KNEE if self.knee is None else self.knee

    def transform(self, X: Array) -> Array:
        """Scale X (n, d) in the client's units; the answer is finite for every finite float32."""
        x = X - self.location
        x /= self.scale
        return squash(x, self._knee).astype(np.float32)

    def transform_one(self, x: Array) -> Array | None:
        """Scale one x (d,); None where a value is not finite, or too far out to be sure quickly."""
        scaled = x - self.location
        scaled /= self.scale
        # No value is larger than the length; and that of what is not finite is not finite either.
        return scaled.astype(np.float32) if np.dot(scaled, scaled) <= KNEE * KNEE else None

    def inverse(self, Y: Array) -> Array:
        """Return scaled vectors Y (n, d) in the client's units, clipped to float32's range."""
        X = unsquash(Y.astype(np.float64), self._knee) * self.scale + self.location
        return np.clip(np.nan_to_num(X, copy=False), -3.4e38, 3.4e38).astype(np.float32)


def middle(values: Float64) -> tuple[Float64, Float64]:
    """Return between which ends (d,) the values (n, d) lie that decide a feature's scale."""
    least, low, half, high, most = np.quantile(values, (0.001, 0.25, 0.5, 0.75, 0.999), axis=0)
    reach = np.where(high > low, REACH * (high - low), np.inf)
    return np.maximum(least, half - reach), np.minimum(most, half + reach)
