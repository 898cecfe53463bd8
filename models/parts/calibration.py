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
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64
from models.config import Policy
from models.parts.pareto_tail import fit_tail, peaks_over_threshold
from models.parts.statistics import binomial_at_most

CAPACITY = 20_000  # the most scores kept: the 1 % quantile then has a standard error of 0.07 points
FLOOR = 1e-300  # the least p-value: its logarithm is finite
LARGEST = float(np.finfo(np.float32).max)
CONFIDENCE = 0.95  # of the interval of a false-alarm rate
COMMON = 0.02  # equal scores with at least this share of all are a common value, not copies
FEWEST_FOR_TAIL = 100  # a tail is fitted to the largest tenth, which must have ten scores


Support = Literal["exact", "extrapolated", "insufficient"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A policy applied to a calibration: `score >= value` is an anomaly.

    `alpha` is the p-value at `value`. `calibration` says how `value` was found: `exact` from enough
    calibration normals, `extrapolated` from the fitted tail, `insufficient` if there are too few
    normals to fit a tail. For the policy `labels`, `labels` counts the distinct scores of each kind
    of label and the number needed of each.
    """

    value: float
    alpha: float
    calibration: Support
    labels: Mapping[str, int] | None = None


class FalseAlarmRate(NamedTuple):
    """The share of calibration normals at or above a threshold, with its confidence interval."""

    rate: float
    low: float
    high: float


def representable(scores: Float64) -> Float64:
    """Round scores to float32 and clip them to its range, kept as float64.

    NaN becomes the largest value, so every score is finite. Scores are rounded only here, so that
    the JSON answer, the binary answer and the threshold use the same number.
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
        gamma, sigma = fit_tail(self.scores)
        object.__setattr__(self, "gamma", gamma)
        object.__setattr__(self, "sigma", sigma)

    @property
    def n(self) -> int:
        """The number of calibration normals."""
        return len(self.scores)

    def without(self, left_out: slice) -> Self:
        """Return this calibration without the scores `left_out`; its tail stays fitted to all."""
        rest = object.__new__(type(self))  # the constructor would fit another tail
        vars(rest).update(vars(self), scores=np.delete(self.scores, left_out))
        return rest

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
        """Return the p-value of one score; see `p_values`."""
        at_least = self.n - int(self.scores.searchsorted(score, side="left"))
        if at_least:
            return (1.0 + at_least) / (self.n + 1.0)
        log = self.log_survival_of_one(score - float(self.scores[-1]))
        return max(math.exp(log) / (self.n + 1.0), FLOOR)

    def log_survival(self, excess: Float64) -> Float64:
        """Return the log chance that a score beyond the largest exceeds it by over `excess`."""
        units = excess / self.sigma
        return -units if self.gamma < 1e-6 else -np.log1p(self.gamma * units) / self.gamma

    def log_survival_of_one(self, excess: float) -> float:
        """Return the log survival of one excess; see `log_survival`."""
        units = excess / self.sigma
        return -units if self.gamma < 1e-6 else -math.log1p(self.gamma * units) / self.gamma

    def threshold(self, policy: Policy) -> Threshold:
        """Return the threshold by the policy `fpr`, `pot`, `quantile` (1 - fpr) or `value`."""
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

    def false_alarm_rate(self, threshold: float, independent: int | None = None) -> FalseAlarmRate:
        """Return the rate of false alarms at a threshold, with its Clopper-Pearson interval.

        Clopper & Pearson, 1934: k of n calibration scores lie at or above the threshold. The lower
        end is the rate under which k or more such scores have the chance (1 - CONFIDENCE) / 2, the
        upper end the rate under which k or fewer have it. The interval is exact if the scores are
        independent draws from the future distribution. Equal scores count as copies, unless they
        make up the share COMMON of all: then they belong to a value that recurs. Copies reduce the
        effective number of scores (Kish, 1965). So does `independent`, the number of independent
        rows that the scores are worth if that is less. For the lower end copies count as no alarms,
        because a learned copy that arrives again may well not alarm.
        """
        k = self.n - int(self.scores.searchsorted(threshold, side="left"))
        tail = (1.0 - CONFIDENCE) / 2.0
        counts = self._copies()
        n = max(1, round(self.n * self.n / int(counts.sum())))
        n = min(n, independent or n)
        single = int((counts[self.n - k :] == 1).sum())
        least, most = math.floor(single / self.n * n), math.ceil(k / self.n * n)
        fewer, at_most = binomial_at_most(least - 1, n), binomial_at_most(most, n)
        low = _largest_rate(lambda p: 1.0 - fewer(p) < tail) if least else 0.0
        high = _largest_rate(lambda p: at_most(p) > tail) if most < n else 1.0
        return FalseAlarmRate(k / self.n, low, high)

    def _copies(self) -> NDArray[np.int64]:
        """Return how often each score occurs, (n,); 1 for a common value."""
        starts = np.flatnonzero(np.r_[True, np.diff(self.scores) > 0.0])
        counts = np.diff(np.r_[starts, self.n])
        copies = np.repeat(counts, counts)
        return np.where(copies >= max(2.0, COMMON * self.n), 1, copies)

    def _support(self, alpha: float) -> Support:
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


def _largest_rate(below: Callable[[float], bool]) -> float:
    """Return the largest rate at which `below` is true, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def severities(p: Float64, alpha: float) -> Float64:
    """Return log(p) / log(alpha): 1 at the threshold, 2 for a p-value of alpha squared."""
    return np.log(p) / _log_alpha(alpha) + 0.0


def severity(p: float, alpha: float) -> float:
    """Return the severity of one p-value; see `severities`."""
    return math.log(p) / _log_alpha(alpha) + 0.0


def _log_alpha(alpha: float) -> float:
    # A fixed threshold below every score has alpha 1, and log(1) would divide by zero.
    return min(math.log(alpha), -1e-12)


def _ordinal(value: float) -> int:
    bits = int(np.float32(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _from_ordinal(ordinal: int) -> float:
    bits = ordinal if ordinal >= 0 else -ordinal | -0x80000000
    return float(np.int32(bits).view(np.float32))
