"""Finds features that rise or fall slowly over the rows, whose later values leave their range."""

import math

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64

ROWS_A_FEATURE = 10  # with fewer rows in each half, chance predicts the place of a row
LEAST = 0.1  # the least correlation of the predicted and the true place of a row
# Two correlations, one for each half, show a trend if the smaller one exceeds SMALLER deviations of
# chance, and their mean exceeds MEAN.
SMALLER, MEAN = 2.5, 3.5
NAMED = 0.5  # a feature is named if its part in the prediction is this share of the largest part


def with_trend(X: Array) -> NDArray[np.bool_]:
    """Return the mask (d,) of the features of X (n, d) with a common trend over the rows.

    A linear regression of a row's place on its values is fitted to one half of the rows. There is a
    trend if it predicts the order of the rows in the other half, for either half. So a season, a
    change of regime, and values that wander are no trend.
    """
    found = np.zeros(X.shape[1], bool)
    n, half = len(X), len(X) // 2
    low, high = np.quantile(X, (0.01, 0.99), axis=0)
    x = np.clip(X.astype(np.float64), low, high)
    spread = x.std(axis=0)
    varies = np.flatnonzero(spread > 1e-6 * np.abs(x).max(axis=0))
    if not len(varies) or half < ROWS_A_FEATURE * (len(varies) + 1):
        return found
    x = (x[:, varies] - x[:, varies].mean(axis=0)) / spread[varies]
    halves = np.split(np.c_[x, np.ones(n)][: 2 * half], 2)
    evidence = [_evidence(*halves), _evidence(*halves[::-1])]
    if min(evidence) > SMALLER and np.mean(evidence) > MEAN:
        # The part of a feature is its coefficient times its deviation given the other features.
        place = np.linspace(-1.0, 1.0, n)
        inverse = np.linalg.pinv(x.T @ x / n, rcond=1e-8)
        part = np.abs(inverse @ (x.T @ place)) / np.sqrt(np.maximum(np.diag(inverse), 1e-12))
        found[varies[part >= NAMED * part.max()]] = True
    return found


def _evidence(learned: Float64, judged: Float64) -> float:
    """Return the correlation of predicted and true places, in deviations of chance.

    The places of the rows `learned` (m, k) are predicted from their values, and so are those of
    the rows `judged` (m, k). If predictions are alike from row to row, the rows count as fewer.
    """
    m = len(judged)
    place = np.linspace(-1.0, 1.0, m)
    coefficients = np.linalg.lstsq(learned, place, rcond=1e-6)[0]
    predicted = judged @ coefficients
    predicted -= predicted.mean()
    slope = float(predicted @ place / (place @ place))
    rest = predicted - slope * place
    correlation = slope * float(place.std()) / max(float(predicted.std()), 1e-12)
    if correlation < LEAST:
        return 0.0
    alike = max(0.0, float(rest[1:] @ rest[:-1]) / max(float(rest @ rest), 1e-12))
    return correlation * math.sqrt(m * (1.0 - alike) / (1.0 + alike))
