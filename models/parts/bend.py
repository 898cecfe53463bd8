"""A bent map of each feature: straight where something was learned, narrow where nothing was.

A regime that comes later may lie a hundred deviations of the first one away, or be thirty times as
wide. On a straight scale a network has to tell its vectors apart by differences that are small
beside their size, which it cannot. The bent map leaves all that was learned in its place, draws
in the gap beyond it, and gives the new range a slope of its own.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

FAR = 8.0  # scaled units beyond all that was learned, from which on a range gets its own slope
SOME = 0.03  # share of the new vectors: fewer may be strays
MARGIN = 1.0  # units of a range beyond either end, which belong to it
GAP = 6.0  # units that are left of a gap, however wide
STEEPEST = 1e3  # slope of a new range, whose feature may vary a thousandth of the first range
MOST_KNOTS = 24  # of one feature: ranges that come later go on with the outermost slope


@dataclass(frozen=True)
class Bend:
    """Knots of an ascending, piecewise linear map: `at` (K, d) go to `to` (K, d), K >= 2.

    Beyond the outermost knots the outermost slopes go on. ValueError where the map does not ascend.
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
        """Return the map of d features that moves nothing."""
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
        """Which features have more than one slope, (d,)."""
        bent: NDArray[np.bool_] = np.ptp(self._slopes, axis=0) > 1e-9
        return bent

    def inverse(self, y: Float64) -> Float64:
        """Return what maps to y (n, d)."""
        return Bend(self.to, self.at)(y)

    def reaching(self, known: Float64, y: Float64) -> Self:
        """Return the map that new values fit into, too; `y` (n, d) is where this one puts them.

        All between `known` (2, d), the ends of what was learned in the map's units, and MARGIN
        beyond, stays. A feature of whose new values SOME lie FAR outside, at either end,
        gets a piece for the gap, where there is one, and one as wide as the values vary.
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
    """Append the knots of a range between two `ends` that varies by `spread`, all in `to`'s units.

    What lies below `high` and below the last knot stays in its place.
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
    """Return n knots: further ones on the first piece, where they change nothing."""
    return [*np.linspace(knots[0], knots[1], 2 + n - len(knots))[:-1], *knots[1:]]
