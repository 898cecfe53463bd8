"""From scores to p-values and to a threshold: split conformal prediction with a fitted tail.

References
----------
Laxhammar & Falkman, Conformal anomaly detection, 2010: p = (1 + #{s_i >= s}) / (n + 1).
Siffer et al., Anomaly detection in streams with extreme value theory, 2017: the tail.
Hosking & Wallis, Parameter and quantile estimation for the generalized Pareto distribution, 1987.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.config import Policy
from models.network import Float64

CAPACITY = 20_000  # scores kept: the 1 % quantile's standard error is then 0.07 points
FLOOR = 1e-300  # least p-value: finite, and its logarithm too
LARGEST = float(np.finfo(np.float32).max)
FEWEST_FOR_TAIL = 100  # fewer scores have no ten largest tenth to fit a tail to
NEIGHBOURHOOD = 0.02  # share of the generated vectors that count as scoring alike; .005 to .05 do
CHANGES = 20  # changes of score that each calibration score is carried with


@dataclass(frozen=True, slots=True)
class Threshold:
    """A policy applied to a calibration: `score >= value` is an anomaly.

    `alpha` is the p-value at `value`. `calibration` says what stands behind it: `exact` when
    enough calibration normals decide, `extrapolated` when the fitted tail does, `insufficient`
    when there are too few normals to fit a tail. `labels`, where labels are to decide, counts the
    different scores of each kind, and those needed of either.
    """

    value: float
    alpha: float
    calibration: str
    labels: Mapping[str, int] | None = None


class Held(NamedTuple):
    """The share of calibration normals at or above a threshold, and its confidence interval."""

    rate: float
    low: float
    high: float


def representable(scores: Float64) -> Float64:
    """Round scores to float32 and clip them to its range, kept as float64.

    What is not a number counts as the largest, so every score is finite. Every score is rounded
    once, here, so that the JSON and the binary answer and the threshold all speak of the same
    number.
    """
    clipped = np.fmax(np.fmin(scores, LARGEST), -LARGEST)
    return clipped.astype(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Calibration:
    """Scores of normals, ascending (n,), and the tail fitted to the largest of them.

    Beyond the largest score p falls like a generalized Pareto survival function with shape
    `gamma` >= 0 and scale `sigma`, starting from 1 / (n + 1).
    """

    scores: Float64
    gamma: float = field(init=False)
    sigma: float = field(init=False)

    def __post_init__(self) -> None:
        gamma, sigma = _fit_tail(self.scores)
        object.__setattr__(self, "gamma", gamma)
        object.__setattr__(self, "sigma", sigma)

    @property
    def n(self) -> int:
        """How many calibration normals there are."""
        return len(self.scores)

    def p_values(self, scores: Float64) -> Float64:
        """Return the p-value of each score, (m,), in [1e-300, 1]; it falls as the score rises."""
        at_least = self.n - self.scores.searchsorted(scores, side="left")
        p = np.asarray((1.0 + at_least) / (self.n + 1.0), np.float64)
        if not np.logical_and.reduce(at_least):
            beyond = at_least == 0
            excess = np.asarray(scores, np.float64)[beyond] - self.scores[-1]
            p[beyond] = np.maximum(np.exp(self.log_survival(excess)) / (self.n + 1.0), FLOOR)
        return p

    def p_value(self, score: float) -> float:
        """Return what `p_values` does, of one score."""
        at_least = self.n - int(self.scores.searchsorted(score, side="left"))
        if at_least:
            return (1.0 + at_least) / (self.n + 1.0)
        return float(self.p_values(np.array([score]))[0])

    def log_survival(self, excess: Float64) -> Float64:
        """Return the log chance that a score beyond the largest is further out than `excess`."""
        units = excess / self.sigma
        return -units if self.gamma < 1e-6 else -np.log1p(self.gamma * units) / self.gamma

    def threshold(self, policy: Policy) -> Threshold:
        """Apply `fpr`, `pot`, `quantile` (1 - fpr) or `value` to these scores."""
        ((name, value),) = policy.items()
        if name == "value":
            exact = float(representable(np.array([value]))[0])
            alpha = float(self.p_values(np.array([exact]))[0])
            return Threshold(exact, alpha, self._support(alpha))
        if name == "pot":
            exact = float(representable(np.array([peaks_over_threshold(self.scores, value)]))[0])
            alpha = float(self.p_values(np.array([exact]))[0])
            enough = self.n >= FEWEST_FOR_TAIL
            return Threshold(exact, alpha, "extrapolated" if enough else "insufficient")
        alpha = value if name == "fpr" else 1.0 - value
        return Threshold(self._smallest_score(alpha), alpha, self._support(alpha))

    def held(self, threshold: float, confidence: float = 0.95) -> Held:
        """Return the rate of false alarms at a threshold, with its Clopper-Pearson interval.

        Clopper & Pearson, 1934: with k of n calibration scores at or above it, the interval ends
        at the rates under which k or more, and k or fewer, have the chance (1 - confidence) / 2.
        It is exact for scores that are independent draws of what is to come.
        """
        k = self.n - int(self.scores.searchsorted(threshold, side="left"))
        tail = (1.0 - confidence) / 2.0
        low = _rate(lambda p: 1.0 - binomial_at_most(k - 1, self.n, p) < tail) if k else 0.0
        high = _rate(lambda p: binomial_at_most(k, self.n, p) > tail) if k < self.n else 1.0
        return Held(k / self.n, low, high)

    def _support(self, alpha: float) -> str:
        if alpha * (self.n + 1) >= 1.0:
            return "exact"
        return "extrapolated" if self.n >= FEWEST_FOR_TAIL else "insufficient"

    def _smallest_score(self, alpha: float) -> float:
        """Return the smallest float32 whose p-value is at most alpha, by bisection over floats."""
        low, high = _ordinal(-LARGEST), _ordinal(LARGEST)
        while low < high:
            middle = (low + high) // 2
            if self.p_values(np.array([_from_ordinal(middle)]))[0] <= alpha:
                high = middle
            else:
                low = middle + 1
        return _from_ordinal(low)


def binomial_at_most(k: int, n: int, p: float) -> float:
    """Return the chance of at most k of n at a rate p in (0, 1).

    >>> round(binomial_at_most(1, 3, 0.5), 12)
    0.5
    """
    j = np.arange(1, k + 1)
    log_terms = np.concatenate([[0.0], np.cumsum(np.log((n - j + 1) / j))])
    log_terms += np.arange(k + 1) * math.log(p) + (n - np.arange(k + 1)) * math.log1p(-p)
    return min(float(np.exp(log_terms).sum()), 1.0)


def _rate(below: Callable[[float], bool]) -> float:
    """Return the rate up to which `below` is true, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def severities(p: Float64, alpha: float) -> Float64:
    """Return log(p) / log(alpha): 1 at the threshold, 2 as rare as alpha squared."""
    return np.log(p) / _unit(alpha) + 0.0


def severity(p: float, alpha: float) -> float:
    """Return what `severities` does, of one p-value."""
    return math.log(p) / _unit(alpha) + 0.0


def _unit(alpha: float) -> float:
    # An alpha of 1 (a fixed threshold below every score) would divide by zero.
    return min(math.log(alpha), -1e-12)


def peaks_over_threshold(scores: Float64, q: float) -> float:
    """Return z_q, the score that a normal exceeds with probability q, by extreme-value theory.

    Siffer et al., 2017: of n ascending scores the N_t above t are peaks, whose excesses follow a
    generalized Pareto distribution with shape gamma and scale sigma, so

        z_q = t + (sigma / gamma) ((q n / N_t)^(-gamma) - 1)

    and t - sigma log(q n / N_t) in the limit gamma = 0. t is the score below the largest tenth,
    or below those rarer than q where q is larger.
    """
    n = len(scores)
    peaks = min(max(n // 10, 10, math.ceil(q * n)), n - 1)
    t, excesses = float(scores[n - peaks - 1]), scores[n - peaks :] - scores[n - peaks - 1]
    gamma, sigma = _pareto(excesses, float(scores[-1]))
    ratio = math.log(q * n / peaks)
    return t - sigma * ratio if gamma < 1e-6 else t + sigma / gamma * math.expm1(-gamma * ratio)


def _fit_tail(scores: Float64) -> tuple[float, float]:
    """Fit (gamma, sigma) to the largest tenth, for excesses over the largest score."""
    n = len(scores)
    k = min(max(n // 10, 10), n - 1)
    excesses = scores[n - k :] - scores[n - k - 1]
    gamma, scale = _pareto(excesses, float(scores[-1]))
    # Peaks over the largest score: the excess over a higher level has scale sigma + gamma * step.
    return gamma, scale + gamma * float(excesses[-1])


def _pareto(excesses: Float64, largest: float) -> tuple[float, float]:
    """Fit (gamma, sigma) to ascending excesses (k,) by probability-weighted moments."""
    k = len(excesses)
    # Even where all scores are equal a tail must fall; 1e-6 nats is below any difference.
    mean = max(float(excesses.mean()), 1e-6, 1e-6 * abs(largest))
    ranks = (np.arange(k, 0, -1) - 0.65) / k  # plotting positions, the largest last
    second = float((excesses * ranks).mean())
    gamma = 2.0 - mean / max(mean - 2.0 * second, 1e-3 * mean)
    # A bounded tail (gamma < 0) would call the next normal impossible; a mean needs gamma < 1.
    gamma = float(np.clip(gamma, 0.0, 0.5))
    return gamma, mean * (1.0 - gamma)


def _ordinal(value: float) -> int:
    bits = int(np.float32(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _from_ordinal(ordinal: int) -> float:
    bits = ordinal if ordinal >= 0 else -ordinal | -0x80000000
    return float(np.int32(bits).view(np.float32))


def thin(scores: NDArray[np.float64], n: int) -> Float64:
    """Return n of the ascending scores, evenly spaced by rank; all where there are no more."""
    if len(scores) <= n:
        return scores
    ranks = (np.arange(n) + 0.5) * len(scores) / n
    return scores[ranks.astype(np.int64)]


def carried(calibrated: Float64, before: Float64, after: Float64) -> Float64:
    """Return what the old normals would score now, without having them, ascending (n,).

    Generated vectors score better than real ones, under every version, so their scores cannot
    stand in. But how a score changed can be seen on them: a real old normal that scored s is
    taken to have changed as the generated vectors that scored about s did. (Moving quantile by
    quantile instead holds the rate only where the order of the scores is kept: on small tabular
    sets it let twice as many false alarms through.)

    Parameters
    ----------
    calibrated
        The previous version's calibration scores, ascending (n,).
    before, after
        Scores of the same generated vectors under the previous and the new version, (g,) with
        g >= 3.
    """
    changes = (after - before)[alike(calibrated, before)]
    return middles((calibrated[:, None] + changes).ravel())


def alike(calibrated: Float64, before: Float64) -> NDArray[np.int64]:
    """Return which of the generated scores (g,), g >= 3, lie about each calibrated one.

    (n, CHANGES), spread over the nearest `NEIGHBOURHOOD` of them by rank.
    """
    order = np.argsort(before, kind="stable")
    reach = min(max(1, round(NEIGHBOURHOOD * len(order) / 2)), (len(order) - 1) // 2)
    centre = np.searchsorted(before[order], calibrated)
    centre = np.clip(centre, reach, len(order) - 1 - reach)
    return order[centre[:, None] + np.linspace(-reach, reach, CHANGES).round().astype(np.int64)]


def middles(scores: Float64) -> Float64:
    """Return every `CHANGES`-th of the scores, ascending: the middle one of each so many."""
    return np.sort(scores)[CHANGES // 2 :: CHANGES]


def mixed(old: Float64, new: Float64, share_old: float) -> Calibration:
    """Return the calibration on old and new scores in the ratio of `share_old`.

    As many scores are kept as there are in that ratio, never one twice.
    """
    if not 0.0 < share_old < 1.0 or not len(old) or not len(new):
        return Calibration(np.sort(thin(np.sort(new if len(new) else old), CAPACITY)))
    n = min(len(old) / share_old, len(new) / (1.0 - share_old), CAPACITY)
    kept = [
        thin(np.sort(old), max(1, round(n * share_old))),
        thin(np.sort(new), max(1, round(n * (1.0 - share_old)))),
    ]
    return Calibration(representable(np.sort(np.concatenate(kept))))
