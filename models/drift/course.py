"""How far scores of normals go in time: what a day's night scores is no drift of the day's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.drift.windows import ROWS, Windows

SMALLEST_SHIFT = 0.1  # of a distribution function: less is no news, however many rows
BEYOND = 1.25  # times as far as a window of normals ever was from all of them
FARTHEST = 0.95  # a distance at which rows have moved, however far normals went
_BINS = 16

Floats = NDArray[np.float64]


def farthest(wander: Floats, least: float, rows: int) -> Floats:
    """Return from which distance on `rows` live rows have moved, at the least `least`.

    `wander` says how far a window of `ROWS` normals went. Nobody knows how far fewer rows go.
    """
    far = np.minimum(BEYOND * wander, FARTHEST)
    if rows < ROWS:
        far = np.where(far > least, FARTHEST, 0.0)
    return np.maximum(least, far)


class Course:
    """Whether the latest scores are no further from all than those of normals in a row were.

    Where normals depend on those before them, a martingale gains with every turn of a season. It
    may bet there once the scores have left the course that normals take, and no sooner.

    Parameters
    ----------
    wander
        The largest distance of the distribution function of p-values of `ROWS` normals, one after
        another, from the uniform one. Up to .08 they are as good as independent.
    """

    def __init__(self, wander: float) -> None:
        self._wander = np.asarray(wander)
        self._windows = Windows((_BINS,))

    def update(self, p_values: NDArray[np.float64]) -> None:
        """Take (n,) p-values in the order in which they came."""
        bins = np.minimum((p_values * _BINS).astype(np.int64), _BINS - 1)
        self._windows.update(np.bincount(bins, minlength=_BINS))

    @property
    def inside(self) -> bool:
        """Whether the latest scores are on a course that tells of no drift."""
        if BEYOND * self._wander <= SMALLEST_SHIFT:
            return False
        counts = self._windows.counts
        rows = int(counts.sum())
        far = farthest(self._wander, SMALLEST_SHIFT, rows)
        uniform = np.arange(1, _BINS + 1) / _BINS
        return bool(np.abs(np.cumsum(counts) / max(rows, 1) - uniform).max() < far) or not rows

    def to_dict(self) -> dict[str, Any]:
        """Return the counts of both windows."""
        return self._windows.to_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s answer."""
        self._windows.restore(state)
