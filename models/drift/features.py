"""Tests whether the input moved: one Kolmogorov-Smirnov distance for each feature."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.drift.course import SMALLEST_SHIFT, farthest
from models.drift.finding import FeatureFinding
from models.drift.windows import Windows

WORST = 5  # the most features named: the number of metric labels must be bounded
_LEAST = 100  # with fewer rows no distance is reported
_CHANCE = 1e-4  # the chance that one test of all features finds drift without any


class FeatureTest:
    """The distance between live and reference distribution functions, on the reference's bins.

    The threshold is the larger of two values: the smallest shift that counts, and the distance that
    sampling alone explains (Dvoretzky-Kiefer-Wolfowitz over all d features, for n live and m
    reference rows): `sqrt(log(2 d / chance) / 2 * (1/n + 1/m))`. Binning can only make a distance
    smaller. Rows in time are dependent: the rows of a night are far from those of the whole day.
    The threshold of a feature is therefore at least 1.25 times the largest distance of a window of
    its learned normals.

    Parameters
    ----------
    expected
        (d, B) shares of the version's reference in each bin.
    reference_rows
        The number of rows from which those shares were counted.
    names
        One name for each feature.
    wander
        (d,) largest distance of a window of learned normals.
    """

    def __init__(
        self,
        expected: NDArray[np.float64],
        reference_rows: int,
        names: Sequence[str],
        wander: NDArray[np.float64],
    ) -> None:
        self._expected = np.cumsum(expected, axis=1)
        self._reference_rows = max(reference_rows, 1)
        self._names = tuple(names)
        self._wander = wander
        self._windows = Windows(expected.shape)

    def update(self, counts: NDArray[np.int64]) -> None:
        """Add (d, B) counts of live rows; counts of another shape belong to another version."""
        self._windows.update(counts)

    def verdicts(self) -> tuple[FeatureFinding, ...]:
        """Return the finding of each of the worst features, worst first."""
        counts = self._windows.counts
        rows = int(counts[0].sum()) if len(counts) else 0
        if rows < _LEAST:
            return ()
        live = np.cumsum(counts, axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        distances = np.abs(live - self._expected).max(axis=1)  # (d,)
        noise = math.log(2 * len(counts) / _CHANCE) / 2 * (1 / rows + 1 / self._reference_rows)
        least = min(1.0, max(SMALLEST_SHIFT, math.sqrt(noise)))
        thresholds = farthest(self._wander, least, rows)
        beyond = distances - thresholds
        return tuple(
            FeatureFinding(
                self._names[i],
                round(float(distances[i]), 6),
                round(float(thresholds[i]), 6),
                bool(beyond[i] >= 0),
            )
            for i in np.argsort(-beyond, kind="stable")[:WORST]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the counts of both windows."""
        return self._windows.to_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s result."""
        self._windows.restore(state)
