"""The judgement of vectors by a threshold, with a fast path for a single vector."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import LARGEST, Calibration, Threshold, severity
from models.parts.scaler import Scaler
from models.scores.auto import Auto
from models.scores.elbo import Scorer


class Judgement(NamedTuple):
    """For each row: score in nats, conformal p-value, severity and verdict, (n,) each."""

    scores: Float64
    p_values: Float64
    severities: Float64
    is_anomaly: NDArray[np.bool_]


class Attribution(NamedTuple):
    """One feature's contribution to a score in nats, its value and its expected value.

    The values of a category are words.
    """

    feature: str
    contribution: float
    value: float | str
    expected: float | str


def judge_one(
    x: Array, scaler: Scaler, scorer: object, calibration: Calibration, threshold: Threshold
) -> Judgement | None:
    """Judge one vector x (d,) in half the time of a matrix of one row.

    Returns None if the fast path does not apply: the score is not a plain `Scorer` or `Auto` with
    this path, or the vector is not finite or so extreme that its score may not be.
    """
    if not isinstance(scorer, Auto) and (type(scorer) is not Scorer or not scorer.takes_one):
        return None
    scaled = scaler.transform_one(x)
    if scaled is None:
        return None
    score = scorer.of_one(scaled)
    if not abs(score) < LARGEST:
        return None
    p = calibration.p_value(score)
    values = np.array((score, p, severity(p, threshold.alpha)))
    is_anomaly = np.array([score >= threshold.value])
    return Judgement(values[:1], values[1:2], values[2:], is_anomaly)


def rows_of(judgement: Judgement, rows: slice | npt.NDArray[np.intp]) -> Judgement:
    """Return the judgement of the given rows."""
    return Judgement(
        judgement.scores[rows],
        judgement.p_values[rows],
        judgement.severities[rows],
        judgement.is_anomaly[rows],
    )
