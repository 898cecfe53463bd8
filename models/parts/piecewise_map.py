"""A piecewise linear map of each feature, for later regimes that lie far from earlier ones.

A later regime may lie a hundred deviations away from the first one, or be thirty times as wide. On
a straight scale a network would have to separate its vectors by differences that are small beside
their size, which it cannot do. The piecewise map leaves every learned value in its place, shrinks
the gap beyond the learned values, and gives the new range a slope of its own.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64

FAR = 8.0  # a range this many scaled units beyond the learned values gets its own slope
LEAST_SHARE = 0.03  # of the new vectors in such a range: fewer may be strays
MARGIN = 1.0  # a range extends this many deviations beyond its ends
GAP = 6.0  # the width of a gap after the map, in scaled units
# The largest slope of a new range: the range may vary a thousandth as much as the first one.
STEEPEST = 1e3
# The least width of a new range, relative to its distance: the knots must differ as float64.
NARROWEST = 1e-12
MOST_KNOTS = 24  # the most knots of one feature; later ranges continue with the outermost slope


@dataclass(frozen=True)
class PiecewiseMap:
    """The knots of an ascending map: `inputs` (K, d) go to `outputs` (K, d), K >= 2.

    Between two knots the map is linear. Beyond the outermost knots the outermost slopes continue.
    Raises ValueError if the map does not ascend.
    """

    inputs: Float64
    outputs: Float64
    _slopes: Float64 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        step, rise = np.diff(self.inputs, axis=0), np.diff(self.outputs, axis=0)
        if not (len(step) and (step > 0.0).all() and (rise > 0.0).all()):
            raise ValueError("piecewise map: the knots do not ascend")
        object.__setattr__(self, "_slopes", rise / step)

    @classmethod
    def identity(cls, d: int) -> Self:
        """Return the identity map of d features."""
        knots = np.repeat([[-1.0], [1.0]], d, axis=1)
        return cls(knots, knots)

    def __call__(self, u: Float64) -> Float64:
        """Map u (n, d), or one u (d,)."""
        y: Float64 = self._slopes[0] * (u - self.inputs[0])
        y += self.outputs[0]
        for knot, rise in zip(self.inputs[1:-1], np.diff(self._slopes, axis=0), strict=True):
            y += rise * np.maximum(u - knot, 0.0)
        return y

    @property
    def bent(self) -> NDArray[np.bool_]:
        """The mask (d,) of the features with more than one slope."""
        return np.ptp(self._slopes, axis=0) > 1e-9

    def inverse(self, y: Float64) -> Float64:
        """Return the values (n, d) that this map takes to y (n, d)."""
        return PiecewiseMap(self.outputs, self.inputs)(y)

    def extended(self, known: Float64, y: Float64) -> Self:
        """Return the map extended to the new values that this map takes to `y` (n, d).

        `known` (2, d) are the ends of the learned values after this map. Values between them, and
        up to MARGIN beyond, keep their place. A feature gets a piece for a new range if at least
        the LEAST_SHARE of its new values lies further than FAR outside. A gap before that range
        gets a piece, too.
        """
        spread = y.std(axis=0)
        spread = np.where(spread < 1.0 / STEEPEST, 1.0, spread)
        spread = np.maximum(spread, NARROWEST * np.abs(y).max(axis=0))
        least, most = y.min(axis=0), y.max(axis=0)
        low, high = np.quantile(y, (LEAST_SHARE, 1.0 - LEAST_SHARE), axis=0) - known
        columns = zip(self.inputs.T, self.outputs.T, strict=True)
        knots = [(list(inputs), list(outputs)) for inputs, outputs in columns]
        for j, (inputs, outputs) in enumerate(knots):
            if high[j] > FAR:
                _extend(inputs, outputs, known[1, j], (least[j], most[j]), spread[j])
            if low[j] < -FAR:
                _mirror(inputs, outputs)
                _extend(inputs, outputs, -known[0, j], (-most[j], -least[j]), spread[j])
                _mirror(inputs, outputs)
        longest = max(len(inputs) for inputs, _ in knots)
        padded = [[_padded(ends, longest) for ends in pair] for pair in knots]
        return type(self)(*np.array(padded).transpose(1, 2, 0))  # 2 arrays (K, d)


def _extend(
    inputs: list[float],
    outputs: list[float],
    high: float,
    ends: tuple[float, float],
    spread: float,
) -> None:
    """Append the knots of a range with these two `ends` and deviation `spread`, in output units.

    Values below `high` and below the last knot keep their place.
    """
    slope = (outputs[-1] - outputs[-2]) / (inputs[-1] - inputs[-2])
    start = max(high + MARGIN, outputs[-1])
    begin, end = ends[0] - MARGIN * spread, ends[1] + MARGIN * spread
    if len(inputs) + 3 > MOST_KNOTS or end <= start:
        return
    new = [(start, start)] if start > outputs[-1] else []  # outputs before and after
    place = start
    if begin > start + GAP:
        place += GAP
        new.append((begin, place))
        start = begin
    new.append((end, place + (end - start) / spread))
    origin = inputs[-1] - outputs[-1] / slope
    inputs += [origin + before / slope for before, _ in new]
    outputs += [after for _, after in new]


def _mirror(inputs: list[float], outputs: list[float]) -> None:
    """Mirror the knots at 0."""
    inputs[:], outputs[:] = [-x for x in inputs[::-1]], [-y for y in outputs[::-1]]


def _padded(knots: list[float], n: int) -> list[float]:
    """Return n knots: the additional ones lie on the first piece, where they change nothing."""
    return [*np.linspace(knots[0], knots[1], 2 + n - len(knots))[:-1], *knots[1:]]
