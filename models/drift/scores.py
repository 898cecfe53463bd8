"""Did the scores move? A martingale with a stated bound, ADWIN for the size, a burst test."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from models.drift.finding import Finding, finding
from models.drift.martingale import Martingale

Floats = NDArray[np.float64]

CROSSING = 100.0  # c: without drift a version ever alarms with chance at most 1/c
HOLD = 2000  # scores without a new crossing or cut after which an alarm is over
_SURPRISE_CAP = 10.0  # nats; ADWIN's bound is for numbers between fixed limits
_ADWIN_KEPT = 2000  # latest inputs that a restarted worker feeds to a new ADWIN
_SMALLEST_CHANGE = 0.1  # nats of mean surprise (1.0 without drift): less is no news


class MartingaleTest:
    """The conformal martingale, with an alarm that holds while the drift does.

    When the capital reaches c the alarm starts, and a fresh martingale asks again, from the
    calibration scores alone: as long as the drift lasts it crosses again and again. The alarm is
    over once `HOLD` scores went by without. The first crossing decides whether a version ever
    alarms, so the bound 1/c stays what it is.
    """

    def __init__(self, calibration: Floats, generator: np.random.Generator) -> None:
        self._calibration = calibration
        self._generator = generator
        self._martingale = Martingale(calibration, generator)
        self._peak: float | None = None  # largest log capital since the alarm; None without one

    def update(self, scores: Floats) -> None:
        """Take (n,) scores in the order in which they came."""
        path = self._martingale.update(scores)
        if len(path) and path.max() >= math.log(CROSSING):
            # What the rest of the batch gained counts for the size of the alarm.
            self._peak = max(self._peak or 0.0, float(path.max()))
            self._martingale = Martingale(self._calibration, self._generator)
        elif self._martingale.seen >= HOLD:
            self._peak = None

    def begin_anew(self) -> None:
        """Reset the capital: the scores so far show no drift."""
        self._martingale, self._peak = Martingale(self._calibration, self._generator), None

    def verdict(self) -> Finding:
        """Return log capital (its peak during an alarm), log c and whether it alarms."""
        statistic = self._martingale.log_capital if self._peak is None else self._peak
        return finding(statistic, math.log(CROSSING))

    def to_dict(self) -> dict[str, Any]:
        """Return the state: what `restore` continues from."""
        return {"martingale": self._martingale.to_dict(), "peak": self._peak}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s answer."""
        self._martingale = Martingale.from_dict(state["martingale"])
        self._generator = self._martingale.generator
        self._peak = state["peak"]


class ChangeTest:
    """ADWIN on the surprise -log p, capped at 10 nats: how much did it change, and when.

    It knows no reference: what it finds is a change, not which side of it is normal.
    """

    def __init__(self) -> None:
        self._adwin: Any = ADWIN()  # type: ignore[no-untyped-call]  # river ships no types
        self._kept: deque[float] = deque(maxlen=_ADWIN_KEPT)
        self._before = 0.0  # mean surprise before the first of the latest cuts, scaled
        self._since = HOLD

    def update(self, p_values: Floats) -> None:
        """Take (n,) p-values in the order in which they came."""
        surprise = -np.log(np.clip(p_values, math.exp(-_SURPRISE_CAP), 1.0)) / _SURPRISE_CAP
        for value in surprise.tolist():
            before = self._adwin.estimation
            self._adwin.update(value)
            self._since += 1
            if self._adwin.drift_detected:
                # One change is often cut away in several steps.
                self._before = before if self._since >= HOLD else self._before
                self._since = 0
        self._kept.extend(surprise.tolist())

    def verdict(self) -> Finding:
        """Return how far the mean surprise moved, in nats, if it did in the last `HOLD` scores."""
        change = abs(self._adwin.estimation - self._before) * _SURPRISE_CAP
        return finding(change if self._since < HOLD else 0.0, _SMALLEST_CHANGE)

    def to_dict(self) -> dict[str, Any]:
        """Return the state: the latest inputs and the latest cut."""
        kept = np.asarray(self._kept, np.float32)
        return {"kept": kept, "before": self._before, "since": self._since}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Continue; the window starts with the kept inputs, as ADWIN's own state is private."""
        test = cls()
        test._kept.extend(np.asarray(state["kept"], np.float64).tolist())
        for value in test._kept:
            test._adwin.update(value)
        test._before, test._since = float(state["before"]), int(state["since"])
        return test


class BurstTest:
    """The share of anomalies among the latest vectors, against what the threshold allows."""

    _WINDOW = 500  # vectors in each of two windows, the latest and the one before
    _LEAST = 50  # vectors before a share means anything

    def __init__(self) -> None:
        self._older = (0, 0)
        self._newer = (0, 0)

    def update(self, anomalies: int, scored: int) -> None:
        """Count `anomalies` among `scored` vectors."""
        self._newer = (self._newer[0] + anomalies, self._newer[1] + scored)
        if self._newer[1] >= self._WINDOW:
            self._older, self._newer = self._newer, (0, 0)

    def verdict(self, alpha: float) -> Finding:
        """Return the share and its bound: five times the expected one, or five deviations more."""
        anomalies = self._older[0] + self._newer[0]
        scored = self._older[1] + self._newer[1]
        if scored < self._LEAST:
            return finding(0.0, 1.0)
        spread = math.sqrt(alpha * (1 - alpha) / scored)
        return finding(anomalies / scored, min(1.0, max(5 * alpha, alpha + 5 * spread, 0.05)))

    def to_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"older": list(self._older), "newer": list(self._newer)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Continue from `to_dict`'s answer."""
        test = cls()
        test._older = (int(state["older"][0]), int(state["older"][1]))
        test._newer = (int(state["newer"][0]), int(state["newer"][1]))
        return test
