"""A piecewise linear map of each feature, bent where a later regime lies far from earlier ones.

A later regime may lie a hundred deviations away from the first one, or be thirty times as wide. On
a straight scale a network would have to separate its vectors by differences that are small beside
their size, which it cannot do. The bent map leaves every learned value in its place, shrinks the
gap beyond the learned values, and gives the new range a slope of its own.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64

FAR = 8.0  # a range this many scaled units beyond the learned values gets its own slope
SOME = 0.03  # the least share of the new vectors in such a range: fewer may be strays
MARGIN = 1.0  # a range extends this many deviations beyond its ends
GAP = 6.0  # the width of a gap after the map, in scaled units
# the largest slope of a new range: it may vary a thousandth as much as the first one
STEEPEST = 1e3
MOST_KNOTS = 24  # the most knots of one feature; later ranges continue with the outermost slope


@dataclass(frozen=True)
class Bend:
    """Knots of an ascending, piecewise linear map: `at` (K, d) go to `to` (K, d), K >= 2.

    Beyond the outermost knots the outermost slopes continue. Raises ValueError if the map does not
    ascend.
    """

    at: Float64
    to: Float64
    _slopes: Float64 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        step, rise = np.diff(self.at, axis=0), np.diff(self.to, axis=0)
        if not (len(step) and (step > 0.0).all() and (rise > 0.0).all()):
            raise ValueError("bend: the knots do not ascend")
        object.__setattr__(self, "_slopes", rise / step)

    @classmethod
    def straight(cls, d: int) -> Self:
        """Return the identity map of d features."""
        knots = np.repeat([[-1.0], [1.0]], d, axis=1)
        return cls(knots, knots)

    def __call__(self, u: Float64) -> Float64:
        """Map u (n, d), or one u (d,)."""
        y: Float64 = self._slopes[0] * (u - self.at[0])
        y += self.to[0]
        for at, more in zip(self.at[1:-1], np.diff(self._slopes, axis=0), strict=True):
            y += more * np.maximum(u - at, 0.0)
        return y

    @property
    def bent(self) -> NDArray[np.bool_]:
        """Mask (d,) of the features with more than one slope."""
        bent: NDArray[np.bool_] = np.ptp(self._slopes, axis=0) > 1e-9
        return bent

    def inverse(self, y: Float64) -> Float64:
        """Return the values (n, d) that this map takes to y (n, d)."""
        return Bend(self.to, self.at)(y)

    def reaching(self, known: Float64, y: Float64) -> Self:
        """Return the map extended to new values, which this map takes to `y` (n, d).

        `known` (2, d) are the ends of the learned values after this map. Values between them, and
        up to MARGIN beyond, keep their place. If at least the share SOME of a feature's new values
        lies further than FAR outside, the feature gets one piece for the gap, if there is a gap,
        and one piece for the new range.
        """
        spread = y.std(axis=0)
        spread = np.where(spread < 1.0 / STEEPEST, 1.0, spread)
        least, most = y.min(axis=0), y.max(axis=0)
        below, beyond = np.quantile(y, (SOME, 1.0 - SOME), axis=0) - known
        below, beyond = below < -FAR, beyond > FAR
        knots = [(list(at), list(to)) for at, to in zip(self.at.T, self.to.T, strict=True)]
        for j, (at, to) in enumerate(knots):
            if beyond[j]:
                _extend(at, to, known[1, j], (least[j], most[j]), spread[j])
            if below[j]:
                _turn(at, to)
                _extend(at, to, -known[0, j], (-most[j], -least[j]), spread[j])
                _turn(at, to)
        longest = max(len(at) for at, _ in knots)
        filled = [(_filled(at, longest), _filled(to, longest)) for at, to in knots]
        both = np.array(filled).transpose(1, 2, 0)  # (2, K, d)
        return type(self)(*both)


def _extend(
    at: list[float], to: list[float], high: float, ends: tuple[float, float], spread: float
) -> None:
    """Append the knots of a range with these two `ends` and deviation `spread`, in units of `to`.

    Values below `high` and below the last knot keep their place.
    """
    slope = (to[-1] - to[-2]) / (at[-1] - at[-2])
    start = max(high + MARGIN, to[-1])
    begin, end = ends[0] - MARGIN * spread, ends[1] + MARGIN * spread
    if len(at) + 3 > MOST_KNOTS or end <= start:
        return
    new = [(start, start)] if start > to[-1] else []
    place = start
    if begin > start + GAP:
        place += GAP
        new.append((begin, place))
        start = begin
    new.append((end, place + (end - start) / spread))
    origin = at[-1] - to[-1] / slope
    at += [origin + before / slope for before, _ in new]
    to += [now for _, now in new]


def _turn(at: list[float], to: list[float]) -> None:
    """Mirror the knots at 0."""
    at[:], to[:] = [-x for x in at[::-1]], [-x for x in to[::-1]]


def _filled(knots: list[float], n: int) -> list[float]:
    """Return n knots: the additional ones lie on the first piece, where they change nothing."""
    return [*np.linspace(knots[0], knots[1], 2 + n - len(knots))[:-1], *knots[1:]]
