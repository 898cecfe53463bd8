"""Calibrates with rows that depend on the rows before them: they are worth fewer independent rows.

With n independent scores, about one in n + 1 new rows exceeds all of them. If scores are alike from
row to row, as with sensors that wander slowly, the largest score of n rows is only as high as that
of m < n independent rows, and one in m + 1 new rows exceeds it. `widened` moves the calibration
scores so that their p-values are those of m scores, with the tail fitted to all n.
"""

import math

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64
from models.parts.calibration import Calibration, representable

HIGH = 0.9  # the quantile of the scores above which they are compared from row to row
# The threshold is that of at least so many rows. A smaller number is uncertain, and the threshold
# would rise too far. The interval of the false-alarm rate counts the rows as they are.
FEWEST = 60
CHANCE = 3.0  # chance explains correlations of up to this many deviations
# Rows that are worth at least this share of their number count as independent.
INDEPENDENT = 0.5


def independent_rows(rows: NDArray[np.int64], scores: Float64) -> int:
    """Return how many independent rows the rows with these indices and scores (n,) are worth.

    This is n divided by the autocorrelation time of whether a score is high, 1 + 2 sum r_k, where
    r_k is the correlation at lag k (Bayley & Hammersley, The effective number of independent
    observations in an autocorrelated time series, 1946). The sum ends at the first two lags whose
    correlations have a negative sum (Geyer, Practical Markov chain Monte Carlo, 1992).
    """
    n, order = len(rows), rows.argsort(kind="stable")
    high = (scores > np.quantile(scores, HIGH))[order].astype(np.float64)
    if not high.any():
        return n
    starts = np.r_[0, np.flatnonzero(np.diff(rows[order]) != 1) + 1]
    longest = int(np.diff(np.r_[starts, n]).max())
    # Between two stretches of consecutive rows lies a gap as long as the longest of them.
    place = np.arange(n) + longest * (np.searchsorted(starts, np.arange(n), "right") - 1)
    values, present = np.zeros((2, int(place[-1]) + 1))
    values[place], present[place] = high - high.mean(), 1.0
    pairs = np.maximum(_products_at_lags(present).round(), 1.0)
    correlations = _products_at_lags(values) / pairs / high.var()
    # each weighted by its share of the pairs in the variance of the mean
    terms = (correlations * pairs / n)[1 : max(2, min(longest, n // 2))]
    sums = terms[: len(terms) // 2 * 2].reshape(-1, 2).sum(axis=1)
    if not len(sums) or sums[0] <= CHANCE * math.sqrt(2.0 / n):
        return n
    end = int(np.argmax(sums <= 0.0)) if (sums <= 0.0).any() else len(sums)
    worth = n / (1.0 + 2.0 * float(sums[:end].sum()))
    return n if worth >= INDEPENDENT * n else max(1, round(worth))


def _products_at_lags(values: Float64) -> Float64:
    """Return the sum of the products of values (n,) at each lag 0..n-1, (n,)."""
    n = len(values)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(values, size)
    return np.fft.irfft(spectrum * spectrum.conj(), size)[:n]


def widened(calibration: Calibration, worth: int | None) -> Calibration:
    """Return a calibration whose p-values are those of `worth` independent scores, or of FEWEST.

    A score that the share F of n scores reaches gets the p-value (1 + m F) / (m + 1), m = `worth`.
    Below the least such p-value, the fitted tail decides.
    """
    n = calibration.n
    worth = _counted(worth, n)
    if worth is None:
        return calibration
    descending = calibration.scores[::-1]
    ranks = np.arange(1.0, n + 1.0)  # of the scores, from the largest
    p = (1.0 + ranks) / (n + 1.0)
    place = (p * (worth + 1.0) - 1.0) / worth * n  # the rank that has p with `worth` rows
    inside = np.interp(place, ranks, descending)
    log = np.log(np.minimum(p * (worth + 1.0) / (1.0 + worth / n), 1.0))
    gamma, sigma = calibration.gamma, calibration.sigma
    excess = -log * sigma if gamma < 1e-6 else sigma / gamma * np.expm1(-gamma * log)
    scores = np.where(place < 1.0, descending[0] + excess, inside)
    return Calibration(representable(np.sort(scores)))


def narrowed(scores: Float64, worth: int | None) -> Float64:
    """Return the ascending scores (n,) of a calibration as they were before it was `widened`.

    `worth` is None for a calibration that was not widened.
    """
    n = len(scores)
    worth = _counted(worth, n)
    if worth is None:
        return scores
    share = np.arange(1, n + 1) / n
    place = (1.0 + worth * share) / (worth + 1.0) * (n + 1.0) - 1.0
    return np.interp(place, np.arange(1.0, n + 1), scores[::-1])[::-1].copy()


def _counted(worth: int | None, n: int) -> int | None:
    """Return how many rows count for n p-values: at least FEWEST; None if all n do."""
    return max(worth, FEWEST) if worth and max(worth, FEWEST) < n else None


def together(old: int, new: int, share_old: float) -> int:
    """Return how many independent rows old and new ones are worth together (Kish, 1965).

    `share_old` is the share of the old ones in the calibration.

    >>> together(100, 100, 0.5), together(100, 100, 0.9)
    (200, 121)
    """
    if not 0.0 < share_old < 1.0:
        return old if share_old else new
    return math.floor(1.0 / (share_old**2 / old + (1.0 - share_old) ** 2 / new) + 1e-9)
