"""Tests whether the scores moved: a martingale, ADWIN for the size of a change, a burst test."""

import math
from collections import Counter, deque
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from models.drift.finding import Finding, finding
from models.drift.martingale import Martingale

Floats = NDArray[np.float64]

CROSSING = 100.0  # c: without drift, the test of a version ever alarms with chance 1/c at most
HOLD = 2000  # an alarm ends after this many scores without a new crossing or cut
_SURPRISE_CAP = 10.0  # in nats; ADWIN's bound needs numbers between fixed limits
_ADWIN_KEPT = 2000  # a restarted worker feeds this many latest inputs to a new ADWIN
# the smallest change of the mean surprise that counts, in nats; the mean is 1.0 without drift
_SMALLEST_CHANGE = 0.1


class MartingaleTest:
    """The conformal martingale, with an alarm that lasts as long as the drift.

    The alarm starts when the capital reaches c. A fresh martingale then starts from the calibration
    scores alone. It crosses c again and again as long as the drift lasts. The alarm ends after
    `HOLD` scores without a crossing. Whether a version ever alarms depends on its first martingale
    alone, so the bound 1/c still holds. `leave_out_alarms` starts the test anew, once for a
    version, and the bound then holds anew.
    """

    def __init__(self, calibration: Floats, generator: np.random.Generator) -> None:
        self._calibration = calibration
        self._generator = generator
        self._below = math.inf  # only scores below this are tested
        self._martingale = self._fresh()
        # the largest log capital since the alarm; None without an alarm
        self._peak: float | None = None

    def update(self, scores: Floats) -> None:
        """Add (n,) scores in order of arrival."""
        path = self._martingale.update(scores[scores < self._below])
        if len(path) and path.max() >= math.log(CROSSING):
            self._peak = max(self._peak or 0.0, float(path.max()))
            self._martingale = self._fresh()
        elif self._martingale.seen >= HOLD:
            self._peak = None

    def restart(self) -> None:
        """Reset the capital, because the scores so far show no drift."""
        self._martingale, self._peak = self._fresh(), None

    def leave_out_alarms(self, threshold: float) -> None:
        """Start again with only the scores below `threshold`. A second call changes nothing."""
        if self._below == math.inf:
            self._below = threshold
            self.restart()

    def _fresh(self) -> Martingale:
        return Martingale(self._calibration[self._calibration < self._below], self._generator)

    def finding(self) -> Finding:
        """Return the log capital (its peak during an alarm), log c and whether the test alarms."""
        statistic = self._martingale.log_capital if self._peak is None else self._peak
        return finding(statistic, math.log(CROSSING))

    def to_dict(self) -> dict[str, Any]:
        """Return the capital's state, its peak during an alarm, and which scores are tested."""
        state = self._martingale.to_dict()
        return {"martingale": state, "peak": self._peak, "below": self._below}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s result."""
        self._martingale = Martingale.from_dict(state["martingale"])
        self._generator = self._martingale.generator
        self._peak = state["peak"]
        self._below = state.get("below", math.inf)  # an earlier release tests all scores


class ChangeTest:
    """ADWIN on the surprise -log p, capped at 10 nats: how much it changed, and when.

    ADWIN has no reference: it finds a change, but not which side of the change is normal.
    """

    def __init__(self) -> None:
        self._adwin: Any = ADWIN()  # type: ignore[no-untyped-call]  # river ships no types
        self._kept: deque[float] = deque(maxlen=_ADWIN_KEPT)
        self._before = 0.0  # the scaled mean surprise before the first of the latest cuts
        self._since = HOLD

    def update(self, p_values: Floats) -> None:
        """Add (n,) p-values in order of arrival."""
        surprise = -np.log(np.clip(p_values, math.exp(-_SURPRISE_CAP), 1.0)) / _SURPRISE_CAP
        for value in surprise.tolist():
            before = self._adwin.estimation
            self._adwin.update(value)
            self._since += 1
            if self._adwin.drift_detected:
                # ADWIN often finds one change in several cuts.
                self._before = before if self._since >= HOLD else self._before
                self._since = 0
        self._kept.extend(surprise.tolist())

    def finding(self) -> Finding:
        """Return how far the mean surprise moved, in nats; 0 without a cut in `HOLD` scores."""
        change = abs(self._adwin.estimation - self._before) * _SURPRISE_CAP
        return finding(change if self._since < HOLD else 0.0, _SMALLEST_CHANGE)

    def to_dict(self) -> dict[str, Any]:
        """Return the state: the latest inputs and the latest cut."""
        kept = np.asarray(self._kept, np.float32)
        return {"kept": kept, "before": self._before, "since": self._since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s result: this test's ADWIN gets the kept inputs once more."""
        self._kept.extend(np.asarray(state["kept"], np.float64).tolist())
        for value in self._kept:
            self._adwin.update(value)
        self._before, self._since = float(state["before"]), int(state["since"])


class BurstTest:
    """Compares the share of anomalies among the latest vectors with the expected share.

    Anomalies of a pattern that a person dismissed do not count.
    """

    _WINDOW = 500  # vectors in each of the two windows, the latest and the one before it
    _LEAST = 50  # with fewer vectors no share is reported

    def __init__(self) -> None:
        self._older: tuple[int, ...] = (0, 0)  # anomalies, and scored vectors
        self._newer: tuple[int, ...] = (0, 0)
        # The anomalies of each window by incident or dismissed pattern.
        self._of_older: Counter[str] = Counter()
        self._of_newer: Counter[str] = Counter()
        self.dismissed: frozenset[str] | None = None  # ids of patterns; None until they are known

    @property
    def excused(self) -> int:
        """The anomalies in the two windows that belong to a dismissed pattern."""
        parts = (self._of_older, self._of_newer)
        return sum(rows[one] for rows in parts for one in self.dismissed or ())

    def attribute(self, rows: Mapping[str, int], dismissed: Set[str]) -> None:
        """Attribute `rows` anomalies to incidents or patterns; `dismissed` do not count."""
        self._of_newer.update(rows)
        self.dismissed = frozenset(dismissed)

    def update(self, anomalies: int, scored: int) -> None:
        """Count `anomalies` among `scored` vectors."""
        self._newer = (self._newer[0] + anomalies, self._newer[1] + scored)
        if self._newer[1] >= self._WINDOW:
            self._older, self._newer = self._newer, (0, 0)
            self._of_older, self._of_newer = self._of_newer, Counter()

    def finding(self, alpha: float) -> Finding:
        """Return the share and its bound, at least 0.05.

        The bound is the larger of five times the expected share and five deviations above it.
        """
        anomalies = max(0, self._older[0] + self._newer[0] - self.excused)
        scored = self._older[1] + self._newer[1]
        if scored < self._LEAST:
            return finding(0.0, 1.0)
        spread = math.sqrt(alpha * (1 - alpha) / scored)
        return finding(anomalies / scored, min(1.0, max(5 * alpha, alpha + 5 * spread, 0.05)))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts of both windows."""
        return {
            "older": list(self._older),
            "newer": list(self._newer),
            "of_older": dict(self._of_older),
            "of_newer": dict(self._of_newer),
            "dismissed": None if self.dismissed is None else sorted(self.dismissed),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s result."""
        self._older, self._newer = tuple(state["older"]), tuple(state["newer"])
        if state.get("dismissed") is not None:  # an earlier release does not know incidents
            self._of_older, self._of_newer = Counter(state["of_older"]), Counter(state["of_newer"])
            self.dismissed = frozenset(state["dismissed"])
