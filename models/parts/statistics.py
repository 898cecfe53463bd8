"""Small statistics used in several places: a binomial distribution, Wilson's interval, AUROC."""

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
