"""Tests which features moved, by a Kolmogorov-Smirnov distance each, and if the input did."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.drift.finding import FeatureFinding, Finding, finding
from models.drift.wander import BEYOND, SMALLEST_SHIFT, farthest
from models.drift.windows import ROWS, Windows

WORST = 5  # the most features named: the number of metric labels must be bounded
_LEAST = 100  # with fewer rows no distance is reported
_CHANCE = 1e-4  # the chance that one test of all features finds drift without any
# The input as a whole has moved if the distances beyond the thresholds sum to at least _EFFECT for
# every _SHARE features, or to _LEAST_EFFECT if rows do not depend on each other.
_SHARE, _EFFECT = 10, 0.1
_LEAST_EFFECT = 0.01


class FeatureTest(Windows):
    """The distance between live and reference distribution functions, on the reference's bins.

    `update` takes counts (d, B) of live rows in each bin. The threshold is the larger of two
    values: the smallest shift that counts, and the distance that sampling alone explains
    (Dvoretzky-Kiefer-Wolfowitz over all d features, for n live and m reference rows):
    `sqrt(log(2 d / chance) / 2 * (1/n + 1/m))`. Bins can only make a distance smaller. Rows in time
    are dependent: the rows of a night are far from those of the whole day. The threshold of a
    feature is therefore at least 1.25 times the largest distance of a window of its learned
    normals.

    Among many features that wander, some always wander further than they did in the learned rows.
    So the input as a whole has moved only if all distances beyond the thresholds sum to at least
    0.1 for every ten features. If no feature wanders, 0.01 is enough.

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
        super().__init__(expected.shape)
        self._expected = np.cumsum(expected, axis=1)
        self._reference_rows = max(reference_rows, 1)
        self._names = tuple(names)
        self._wander = wander
        independent = bool((BEYOND * wander <= self._least(ROWS)).all())
        tenths = -(-len(expected) // _SHARE)
        self._effect = _LEAST_EFFECT if independent else _EFFECT * tenths

    def findings(self) -> tuple[tuple[FeatureFinding, ...], Finding]:
        """Return the findings of the worst features, worst first, and that of the whole input."""
        counts = self.counts
        rows = int(counts[0].sum()) if len(counts) else 0
        if rows < _LEAST:
            return (), finding(0.0, self._effect)
        live = np.cumsum(counts, axis=1) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        distances = np.abs(live - self._expected).max(axis=1)  # (d,)
        thresholds = farthest(self._wander, self._least(rows), rows)
        beyond = distances - thresholds
        worst = tuple(
            FeatureFinding(
                self._names[i],
                round(float(distances[i]), 6),
                round(float(thresholds[i]), 6),
                bool(beyond[i] >= 0),
            )
            for i in np.argsort(-beyond, kind="stable")[:WORST]
        )
        return worst, finding(float(np.maximum(beyond, 0.0).sum()), self._effect)

    def _least(self, rows: int) -> float:
        """Return the least distance at which a feature counts as moved after `rows` live rows."""
        d = max(len(self._expected), 1)
        noise = math.log(2 * d / _CHANCE) / 2 * (1 / rows + 1 / self._reference_rows)
        return min(1.0, max(SMALLEST_SHIFT, math.sqrt(noise)))
