"""A conformal test martingale: it tests whether the scores moved since the calibration."""

import json
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SIGNIFICANT_BITS = 10  # a precision of 1/1024 is fine enough, and bounds the number of values
_SWITCH = 0.01  # chance per score that a bet gives way to another
_CHUNK = 512  # how many scores are ranked at once, by a (512, 512) comparison


def _round(scores: Floats) -> Floats:
    """Round scores (n,) to 10 significant bits."""
    mantissa, exponent = np.frexp(scores)
    # Adding zero turns -0.0 into 0.0; otherwise -0.0 would have a bin of its own.
    whole = np.rint(np.ldexp(mantissa, _SIGNIFICANT_BITS)) + 0.0
    return np.ldexp(whole, exponent - _SIGNIFICANT_BITS)


def bets(p: Floats) -> Floats:
    """Return the stakes (n, 8) on p-values (n,); each column is >= 0 and integrates to 1 on (0, 1].

    Column 0 does not bet. The powers of p bet that scores became much higher. The last four columns
    bet that scores became higher, lower, more spread and less spread.
    """
    power = [epsilon * p ** (epsilon - 1) for epsilon in (0.2, 0.4, 0.7)]
    spread = 6 * (p - 0.5) ** 2
    slope = 1.8 * (p - 0.5)
    return np.stack(
        [np.ones_like(p), *power, 1 - slope, 1 + slope, 0.5 + spread, 1.5 - spread], axis=1
    )


class Multiset:
    """The multiset of rounded scores seen so far: distinct values, and the count of each."""

    def __init__(self, values: Floats, counts: Ints) -> None:
        self.values = np.asarray(values, np.float64)
        self.counts = np.asarray(counts, np.int64)
        self._below = np.concatenate([[0], np.cumsum(self.counts)])

    @classmethod
    def of(cls, scores: Floats) -> Self:
        """Return the multiset of (n,) scores."""
        return cls(*np.unique(_round(np.asarray(scores, np.float64)), return_counts=True))

    def __len__(self) -> int:
        return int(self._below[-1])

    def ranks(self, scores: Floats, u: Floats) -> Floats:
        """Return the smoothed online p-value of each of (n,) scores, and add the scores.

        The i-th score is ranked among the multiset and the i - 1 scores before it; `u` (n,) in
        (0, 1] breaks ties.
        """
        rounded = _round(scores)
        low = self._below[np.searchsorted(self.values, rounded, "left")]
        high = self._below[np.searchsorted(self.values, rounded, "right")]
        earlier = np.tri(len(rounded), k=-1, dtype=bool)
        above = len(self) - high + ((rounded[None, :] > rounded[:, None]) & earlier).sum(axis=1)
        tied = high - low + ((rounded[None, :] == rounded[:, None]) & earlier).sum(axis=1)
        p: Floats = (above + u * (tied + 1)) / (len(self) + np.arange(1, len(rounded) + 1))
        self._add(rounded)
        return p

    def _add(self, rounded: Floats) -> None:
        new, times = np.unique(rounded, return_counts=True)
        values = np.union1d(self.values, new)
        counts = np.zeros(len(values), np.int64)
        counts[np.searchsorted(values, self.values)] += self.counts
        counts[np.searchsorted(values, new)] += times
        self.values, self.counts = values, counts
        self._below = np.concatenate([[0], np.cumsum(counts)])


class Martingale:
    """Capital that grows only by betting that the scores are no longer exchangeable.

    Each live score gets a smoothed online p-value: its rank among the real calibration scores and
    the live scores before it. If scores are exchangeable, these p-values are independent and
    uniform. The capital of any betting scheme is then a martingale, and the chance that it ever
    reaches c is at most 1/c (Ville's inequality). The bound holds for one version; a new version
    needs a new martingale. `benchmarks/drift_false_alarms.py` measures it at c = 100 on 1,000
    streams of 5,000 normal scores: 0.7 % cross with 200 calibration scores, 0.3 % with 1,000. A
    shift by one standard deviation is found after 43 scores (median).

    The scheme is a mixture of bets between which capital may switch (fixed share). Capital at rest
    starts to bet at the t-th score with chance 1/(t + 20). Without drift the capital then falls
    like a power of t and not exponentially, so that a late shift is found too.

    Parameters
    ----------
    calibration
        (n,) scores of real normals that the version was not trained on.
    generator
        Breaks ties between equal ranks; with a seed, a run can be repeated.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> martingale = Martingale(rng.normal(size=500), np.random.default_rng(1))
    >>> bool(martingale.update(rng.normal(size=5000)).max() < math.log(100))
    True
    >>> bool(martingale.update(rng.normal(1.0, 1.0, size=100)).max() > math.log(100))
    True

    References
    ----------
    Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2nd ed., chapter 8.
    Herbster and Warmuth, "Tracking the best expert", 1998.
    """

    def __init__(self, calibration: Floats, generator: np.random.Generator) -> None:
        self._earlier = Multiset.of(calibration)  # the scores so far
        self.generator = generator
        self._weights = np.eye(1, bets(np.ones(1)).shape[1])[0]  # all capital is at rest
        self.log_capital = 0.0
        self.seen = 0

    def update(self, scores: Floats) -> Floats:
        """Bet on (n,) finite scores in order; return the log capital after each, (n,), in nats."""
        path = np.empty(len(scores))
        for start in range(0, len(scores), _CHUNK):
            part = np.asarray(scores[start : start + _CHUNK], np.float64)
            # random() is in [0, 1); 1 minus it is in (0, 1], so that no p-value is ever zero.
            p = self._earlier.ranks(part, 1.0 - self.generator.random(len(part)))
            for offset, stakes in enumerate(bets(p)):
                path[start + offset] = self._step(stakes)
        return path

    def _step(self, stakes: Floats) -> float:
        """Bet all capital by these stakes (8,) on one score; return the log capital afterwards."""
        weights = self._weights
        others = len(weights) - 1
        # Before the bet, capital moves: some of the capital at rest joins the other columns, and
        # each of these gives away the share _SWITCH, which all columns get in equal parts.
        woken = weights[0] / (self.seen + 20)
        switched = _SWITCH * float(weights[1:].sum())
        weights[1:] *= 1 - _SWITCH
        weights[1:] += (woken + switched * others / (others + 1)) / others
        weights[0] += switched / (others + 1) - woken
        weights *= stakes
        growth = float(weights.sum())
        weights /= growth
        self.log_capital += math.log(growth)
        self.seen += 1
        return self.log_capital

    def to_dict(self) -> dict[str, Any]:
        """Return the whole state, with the generator's: numbers, arrays and one string."""
        return {
            "values": self._earlier.values,
            "counts": self._earlier.counts,
            "weights": self._weights,
            "log_capital": self.log_capital,
            "seen": self.seen,
            # The state is text because its integers have 128 bits.
            "generator": json.dumps(self.generator.bit_generator.state),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Return a martingale that continues exactly where `to_dict` was called."""
        generator = np.random.default_rng()
        generator.bit_generator.state = json.loads(state["generator"])
        martingale = cls(np.empty(0), generator)
        martingale._earlier = Multiset(state["values"], state["counts"])
        martingale._weights = np.array(state["weights"], np.float64)
        martingale.log_capital = float(state["log_capital"])
        martingale.seen = int(state["seen"])
        return martingale
