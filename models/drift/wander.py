"""How far the scores of normals wander over time: a change from day to night is not drift."""

import numpy as np
from numpy.typing import NDArray

from models.drift.windows import ROWS, Windows

# the smallest distance of distribution functions that counts as drift, however many rows
SMALLEST_SHIFT = 0.1
BEYOND = 1.25  # live rows may wander this many times as far as the learned normals did
FARTHEST = 0.95  # rows at this distance have moved, however far normals wander
_BINS = 16

Floats = NDArray[np.float64]


def farthest(wander: Floats, least: float, rows: int) -> Floats:
    """Return the distance from which `rows` live rows count as moved; it is at least `least`.

    `wander` is how far a window of `ROWS` learned normals was from all of them. How far fewer than
    `ROWS` rows wander is unknown: if normals wander at all, they have moved from `FARTHEST` on.
    """
    distance = np.minimum(BEYOND * wander, FARTHEST)
    if rows < ROWS:
        distance = np.where(distance > least, FARTHEST, least)
    return np.maximum(least, distance)


class WanderCheck(Windows):
    """Checks whether the latest scores wander no further than those of consecutive normals did.

    If normals depend on earlier normals, a martingale gains whenever the season changes. It may
    therefore bet only after the scores have left the range in which normals wander.

    Parameters
    ----------
    wander
        The largest distance between the uniform distribution function and that of the p-values of
        `ROWS` consecutive normals. Up to 0.08 they count as independent.
    """

    def __init__(self, wander: float) -> None:
        super().__init__((_BINS,))
        self._wander = np.asarray(wander)

    def add(self, p_values: Floats) -> None:
        """Add p-values (n,) in order of arrival."""
        bins = np.minimum((p_values * _BINS).astype(np.int64), _BINS - 1)
        self.update(np.bincount(bins, minlength=_BINS))

    @property
    def is_inside(self) -> bool:
        """Whether the latest scores are still in the range in which normals wander."""
        if BEYOND * self._wander <= SMALLEST_SHIFT:
            return False
        counts = self.counts
        rows = int(counts.sum())
        if not rows:
            return True
        uniform = np.arange(1, _BINS + 1) / _BINS
        distance = np.abs(np.cumsum(counts) / rows - uniform).max()
        return bool(distance < farthest(self._wander, SMALLEST_SHIFT, rows))
