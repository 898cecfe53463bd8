"""The map from a client's units to the network's scaled units.

It is fitted once, to a detector's first experience. Later versions keep it for all learned values:
a scaler refitted to new data alone would move every old vector and so erase the past.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.categories import Slots
from models.parts.piecewise_map import PiecewiseMap

# Scaled values are unchanged up to this many units and grow as a logarithm beyond it, so that one
# extreme value can neither blow up a gradient nor hide the other features. The map is invertible,
# and its slope is continuous.
KNEE = 60.0
REACH = 20.0  # in ranges of the middle half: values further out do not decide the scale
# The scale of a constant feature, relative to its value: then any change is large, in any unit, but
# float32's rounding, 1e-7, is not.
CONSTANT_SCALE = 3e-5
ZERO_SCALE = 1e-3  # the scale of a constant 0, in the client's unit


def squash(x: Float64) -> Float64:
    """Return x where |x| <= KNEE, and sign(x) (KNEE + log(1 + |x| - KNEE)) beyond it."""
    size = np.abs(x)
    if not x.size or size.max() <= KNEE:
        return x  # the usual case: the logarithm costs more than the rest of the scaling
    beyond = np.maximum(size - KNEE, 0.0)
    return np.where(beyond > 0.0, np.copysign(KNEE + np.log1p(beyond), x), x)


def unsquash(y: Float64) -> Float64:
    """Invert `squash`."""
    excess = np.maximum(np.abs(y) - KNEE, 0.0)
    return np.clip(y, -KNEE, KNEE) + np.sign(y) * np.expm1(excess)


@dataclass(frozen=True, slots=True)
class Scaler:
    """Location and scale of each feature, (d,) float64 each; scale is never 0.

    With `slots`, some of a client's features are categories. Then d counts the numbers, which are
    scaled, and the slots, which are not. `piecewise` maps values of later experiences that are far
    away or vary much more; None if there were none.

    >>> Scaler.fit(np.float32([[0, 5], [2, 5]])).scale.round(1)
    array([1., 0.])
    """

    location: Float64
    scale: Float64
    piecewise: PiecewiseMap | None = None
    slots: Slots | None = None

    @property
    def width(self) -> int:
        """The number w of features of a client's vector: less than d if some are categories."""
        return len(self.scale) if self.slots is None else self.slots.width

    @property
    def owners(self) -> NDArray[np.intp]:
        """The index of the client's feature to which each scaled number belongs, (d,)."""
        return np.arange(len(self.scale)) if self.slots is None else self.slots.owners

    @classmethod
    def fit(cls, X: Array, categories: Sequence[int] = (), unit: bool = False) -> Self:
        """Fit to X (n, w), in which the features `categories` hold codes: `models.categories`.

        Location and scale are mean and deviation of a feature's middle values. Values beyond the
        middle 99.8 %, or further from the median than REACH ranges of the middle half, are first
        pulled in, so that a few extreme values among the normals cannot flatten a feature. The
        scale of a constant feature is CONSTANT_SCALE of its value; for 0 it is ZERO_SCALE. With
        `unit`, all features share one map onto [0, 1], as a Bernoulli likelihood needs.
        """
        if not categories:
            return cls(*_location_and_scale(X, unit))
        slots = Slots.fit(X, categories)
        location, scale = np.empty(0), np.empty(0)
        if slots.numbers.size:
            location, scale = _location_and_scale(X[:, slots.numbers], unit)
        more = len(slots.codes)
        return cls(
            np.pad(location, (0, more)), np.pad(scale, (0, more), constant_values=1.0), slots=slots
        )

    def extended(self, X: Array, known: Float64, constant: NDArray[np.bool_]) -> Self:
        """Return the scaler extended to new normals X (n, w).

        New values of a category take free slots. Numbers between the ends of the learned values,
        `known` (2, d) scaled, keep their place, so that nothing learned moves. A feature that was
        `constant` (w,) so far keeps its location and takes its scale from the new values, of which
        a few extreme ones have no influence.
        """
        slots = self.slots
        if slots is not None:
            slots = slots.with_new_values(X)
            constant = np.pad(constant[slots.numbers], (0, len(slots.codes)))
            X = slots.encode(X)
            X[:, slots.numbers.size :] = 0.0  # within the learned range of any slot
        offsets = X - self.location
        offsets = np.clip(offsets, *middle_range(offsets))
        spread = np.sqrt(np.square(offsets).mean(axis=0))
        scale = np.where(constant, np.maximum(self.scale, spread), self.scale)
        piecewise = self.piecewise or PiecewiseMap.identity(len(scale))
        piecewise = piecewise.extended(known, piecewise(offsets / scale))
        bent = piecewise if piecewise.bent.any() else None
        return replace(self, scale=scale, piecewise=bent, slots=slots)

    def extension_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the piecewise map and the slots as tensors of an artifact, if there are any."""
        tensors: dict[str, NDArray[Any]] = {}
        if self.piecewise is not None:
            tensors |= {"scaler.at": self.piecewise.inputs, "scaler.to": self.piecewise.outputs}
        if self.slots is not None:
            tensors["scaler.codes"] = self.slots.codes
            tensors["scaler.categories"] = np.array(self.slots.features, np.int64)
            if len(self.slots.shared):
                tensors["scaler.shared"] = self.slots.shared
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], counts: Sequence[int] = ()) -> Self:
        """Return the scaler in an artifact's tensors; `counts` are the slots of each category."""
        piecewise = (
            PiecewiseMap(tensors["scaler.at"], tensors["scaler.to"])
            if "scaler.at" in tensors
            else None
        )
        location, slots = tensors["scaler.location"], None
        if counts:
            width = len(location) - sum(counts) + len(counts)
            features = tuple(tensors["scaler.categories"].tolist())
            slots = Slots(width, features, tuple(counts), tensors["scaler.codes"])
            if "scaler.shared" in tensors:
                slots = replace(slots, shared=tensors["scaler.shared"])
        return cls(location, tensors["scaler.scale"], piecewise, slots)

    def transform(self, X: Array) -> Array:
        """Scale X (n, w) from the client's units to (n, d); finite float32 values stay finite."""
        x = (X if self.slots is None else self.slots.encode(X)) - self.location
        x /= self.scale
        return squash(x if self.piecewise is None else self.piecewise(x)).astype(np.float32)

    def transform_one(self, x: Array) -> Array | None:
        """Scale one x (w,); None if a value is not finite or so large that it needs `transform`."""
        scaled = (x if self.slots is None else self.slots.encode(x[None])[0]) - self.location
        scaled /= self.scale
        if self.piecewise is not None:
            scaled = self.piecewise(scaled)
        # The norm is an upper bound for every value, and is finite only if every value is.
        return scaled.astype(np.float32) if np.dot(scaled, scaled) <= KNEE * KNEE else None

    def inverse(self, Y: Array) -> Array:
        """Return scaled vectors Y (n, d) in the client's units (n, w), clipped to float32's range.

        A category takes the value of its largest slot.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is clipped below
            scaled = unsquash(Y.astype(np.float64))
            X = (scaled if self.piecewise is None else self.piecewise.inverse(scaled)) * self.scale
            X += self.location
        numbers: Array = np.clip(np.nan_to_num(X, copy=False), -3.4e38, 3.4e38).astype(np.float32)
        return numbers if self.slots is None else self.slots.decode(numbers)

    def valid(self, y: Array) -> Array:
        """Return scaled vectors y (n, d) with exactly one slot set per category."""
        return y if self.slots is None else self.slots.valid(y)


def _location_and_scale(X: Array, unit: bool) -> tuple[Float64, Float64]:
    """Return location and scale of the numbers X (n, d), (d,) each; see `Scaler.fit`."""
    values = X.astype(np.float64)
    if unit:
        spread = values.max() - values.min()
        ones = np.ones(X.shape[1])
        return values.min() * ones, (spread or 1.0) * ones
    inner = np.clip(values, *middle_range(values))
    location, scale = inner.mean(axis=0), inner.std(axis=0)
    # A deviation below float32's resolution at these values is rounding, not variation.
    constant = scale <= 1e-6 * np.abs(inner).max(axis=0)
    of_constant = np.where(location == 0.0, ZERO_SCALE, CONSTANT_SCALE * np.abs(location))
    return location, np.where(constant, of_constant, scale)


def middle_range(values: Float64) -> tuple[Float64, Float64]:
    """Return the ends (d,) between which values (n, d) decide a feature's scale."""
    least, low, half, high, most = np.quantile(values, (0.001, 0.25, 0.5, 0.75, 0.999), axis=0)
    reach = np.where(high > low, REACH * (high - low), np.inf)
    return np.maximum(least, half - reach), np.minimum(most, half + reach)
