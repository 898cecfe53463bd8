"""A score relative to the regime: each regime has its own calibration and false-alarm rate.

Mondrian conformal prediction (Vovk, Gammerman & Shafer, Algorithmic learning in a random world,
2005, section 4.5). With k(x) the regime nearest to x, and s the base score,

    p(x) = (1 + #{i : k_i = k(x), s_i >= s(x)}) / (n_k(x) + 1)        S(x) = -log p(x)    [nats]

The rule is again S >= threshold, with one threshold for all regimes. Between two calibration scores
-log p is interpolated, so that S rises with s. Beyond the largest score it follows the tail fitted
to the regime.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import CAPACITY, Calibration, representable
from models.parts.carried_calibration import alike, middles, thin
from models.parts.network import Network
from models.parts.regimes import Boundaries

FEWEST = 50  # a regime with fewer calibration scores uses those of all regimes
ROUNDED = 1e-5  # scores of a row alone and among others differ by less, relative to their size

Tables = dict[int, Float64]
"""The ascending calibration scores of each regime, by its number."""


class ScoreByRegime:
    """A score expressed as -log p within the regime of each vector, in nats.

    It costs as much as the base score, plus one more pass through the encoder's hidden layers.
    """

    def __init__(
        self, score: Any, network: Network, boundaries: Boundaries, tables: list[Float64]
    ) -> None:
        self._score, self._network, self._boundaries = score, network, boundaries
        self._surprises = [Surprise(calibration) for calibration in calibrations(tables)]

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        scores, regimes = self._score(x), self._boundaries.nearest(self._network, x)
        relative = np.empty(len(x))
        for regime in np.unique(regimes):
            rows = regimes == regime
            relative[rows] = self._surprises[regime](scores[rows])
        return representable(relative)

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's share of the base score, and its expected value, (n, d) each."""
        return self._score.explain(x)


def calibrations(tables: list[Float64]) -> list[Calibration]:
    """Return the calibration of each regime; a regime with too few scores uses all scores."""
    together = Calibration(np.sort(np.concatenate(tables)))
    return [Calibration(table) if len(table) >= FEWEST else together for table in tables]


class Surprise:
    """-log p of scores under a calibration: the i-th largest of n scores has -log(i / (n + 1)).

    >>> Surprise(Calibration(np.arange(9.0)))(np.array([8.0, 7.5, -5.0])).round(3).tolist()
    [2.303, 1.956, 0.105]
    """

    def __init__(self, calibration: Calibration) -> None:
        self._calibration, n = calibration, calibration.n
        self._values, smaller = np.unique(calibration.scores, return_index=True)
        self._rarest = math.log(n + 1.0)
        # A score barely above the largest equals it but for rounding: the row may be a copy.
        self._largest = float(self._values[-1])
        self._end = self._largest + ROUNDED * max(1.0, abs(self._largest))
        # equal scores share the p-value of the whole group
        self._at_values = -np.log((n - smaller) / (n + 1.0))
        # The same numbers for `of_one`, as plain floats in an array: a list takes four times the
        # memory.
        self._as_floats = self._values.data, self._at_values.data

    def __call__(self, scores: Float64) -> Float64:
        """Return -log p of each score, (m,), interpolated; beyond the largest by the tail."""
        inside = np.interp(scores, self._values, self._at_values)
        if not scores.size or scores[scores.argmax()] <= self._end:
            return inside  # the usual case
        excess = np.maximum(scores - self._largest, 0.0)
        beyond = self._rarest - self._calibration.log_survival(excess)
        return np.where(scores > self._end, beyond, inside)

    def of_one(self, score: float) -> float:
        """Return -log p of one score; see `__call__`."""
        values, rarity = self._as_floats
        i = bisect_right(values, score)
        if i == len(values):
            if score > self._end:
                excess = score - self._largest
                return self._rarest - self._calibration.log_survival_of_one(excess)
            return rarity[-1]
        if i == 0:
            return rarity[0]
        before, low = values[i - 1], rarity[i - 1]
        return (rarity[i] - low) / (values[i] - before) * (score - before) + low


def tables_of(scores: Float64, numbers: NDArray[np.int64]) -> Tables:
    """Return the scores (n,) of each regime, ascending; `numbers` (n,) are their regimes."""
    return {int(r): np.sort(scores[numbers == r]) for r in np.unique(numbers)}


def carried_tables(
    tables: Tables | None,
    regime_before: NDArray[np.int64],
    regime_after: NDArray[np.int64],
    before: Float64,
    after: Float64,
) -> Tables:
    """Return the scores of old normals under the new version, grouped by their new regime.

    The previous version generated g vectors. `regime_before` and `regime_after` (g,) are their
    regimes, `before` and `after` (g,) their scores, under the previous and the new version. An old
    normal is assumed to change as the generated vectors of its regime with similar scores did: see
    `carried_calibration.carried`. It may so move to another regime. A regime into which almost no
    vector moved gets no score. If the previous version had no `tables`, the generated vectors' new
    scores are used.
    """
    if tables is None:
        return tables_of(after, regime_after)
    scores, regimes = [np.empty(0)], [regime_after[:0]]
    for number, table in tables.items():
        rows = np.flatnonzero(regime_before == number)
        if len(rows) >= 3:
            similar = rows[alike(table, before[rows])]  # (n, CHANGES)
            scores.append((table[:, None] + (after - before)[similar]).ravel())
            regimes.append(regime_after[similar].ravel())
    moved = tables_of(np.concatenate(scores), np.concatenate(regimes))
    return {number: middles(scores_now) for number, scores_now in moved.items()}


def joined_tables(old: Tables, new: Tables, numbers: list[int]) -> list[Float64]:
    """Return the old and new scores of each regime in `numbers`, at most `CAPACITY` in total."""
    nothing = np.empty(0)
    both = [np.concatenate([old.get(r, nothing), new.get(r, nothing)]) for r in numbers]
    return [representable(thin(np.sort(table), CAPACITY // len(numbers))) for table in both]


def pooled_calibration(tables: list[Float64]) -> Calibration:
    """Return the calibration of the relative score on all regimes' own calibration scores.

    Equal scores count as if they differed. A regime whose scores are all equal cannot alarm at the
    configured rate, and the other regimes must not alarm more often because of it.
    """
    pairs = zip(calibrations(tables), tables, strict=True)
    relative = [
        -np.log(np.arange(1, len(table) + 1) / (len(table) + 1.0))
        if len(table) >= FEWEST
        else Surprise(calibration)(table)
        for calibration, table in pairs
    ]
    return Calibration(representable(np.sort(np.concatenate(relative))))


def to_tensors(tables: list[Float64]) -> dict[str, NDArray[Any]]:
    """Return the arrays in the form that a version's `scoring` stores."""
    sizes = np.array([len(table) for table in tables], np.int64)
    return {"regime.scores": np.concatenate(tables), "regime.sizes": sizes}


def from_tensors(scoring: Mapping[str, NDArray[Any]]) -> list[Float64] | None:
    """Return the tables that were given to `to_tensors`; None if there are none."""
    if "regime.sizes" not in scoring:
        return None
    return np.split(scoring["regime.scores"], np.cumsum(scoring["regime.sizes"])[:-1])
