"""Small statistics used in several places: binomial tails, Wilson's interval, AUROC."""

import math
from collections.abc import Callable

import numpy as np

from models.arrays import Float64


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate of `hits` in `n` (Wilson, 1927).

    >>> [round(end, 4) for end in wilson(1, 100)]
    [0.0018, 0.0545]
    """
    z = 1.96  # 95 % of a normal distribution lie within so many deviations
    rate, slack = hits / n, z * z / n
    centre = (rate + slack / 2) / (1 + slack)
    half = z / (1 + slack) * math.sqrt(rate * (1 - rate) / n + slack / (4 * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def binomial_tail(k: int, n: int, probability: float) -> float:
    """Return P(Binomial(n, probability) >= k), exact up to rounding.

    >>> round(binomial_tail(2, 10, 0.01), 6)
    0.004266
    """
    if k <= 0:
        return 1.0
    i = np.arange(k, n, dtype=np.float64)
    ratios = np.log((n - i) / (i + 1)) + math.log(probability / (1.0 - probability))
    masses = np.concatenate([[0.0], ratios.cumsum()])  # log masses relative to the mass at k
    largest = float(masses.max())
    total = math.log(float(np.exp(masses - largest).sum())) + largest
    return math.exp(min(0.0, log_mass(k, n, probability) + total))


def log_mass(k: int, n: int, probability: float) -> float:
    """Return the logarithm of P(Binomial(n, probability) = k)."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(probability) + (n - k) * math.log1p(-probability)


def auroc(normals: Float64, anomalies: Float64) -> float:
    """Return the chance that an anomaly's score exceeds a normal's; a tie counts half.

    >>> auroc(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.875
    """
    ordered = np.sort(normals)
    below = np.searchsorted(ordered, anomalies, side="left")
    not_above = np.searchsorted(ordered, anomalies, side="right")
    return float((below + not_above).mean() / 2 / len(ordered))


def auroc_if_both(normals: Float64, anomalies: Float64) -> float | None:
    """Return the AUROC; None if there are no normals or no anomalies."""
    return auroc(normals, anomalies) if len(normals) and len(anomalies) else None


def binomial_at_most(k: int, n: int) -> Callable[[float], float]:
    """Return P(Binomial(n, p) <= k) as a function of p in (0, 1).

    >>> round(binomial_at_most(1, 3)(0.5), 12)
    0.5
    """
    j = np.arange(1, k + 1)
    hits = np.arange(k + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((n - j + 1) / j))])

    def at_most(p: float) -> float:
        log_terms = ways + hits * math.log(p) + (n - hits) * math.log1p(-p)
        return min(float(np.exp(log_terms).sum()), 1.0)

    return at_most
