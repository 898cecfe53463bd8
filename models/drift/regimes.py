"""Where does the traffic fall? Shares of the regimes that a version knows, live against learned."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.drift.finding import MixFinding, Presence, RegimeShare, finding
from models.drift.windows import Windows

PRESENT = 0.01  # share of live rows from which a regime is there
_LEAST = 100  # rows before a share means anything
_SMALLEST_CHANGE = 0.2  # of the mix: less is no news, however many rows
_CHANCE = 1e-4  # that one look finds drift where there is none


class Known(NamedTuple):
    """A regime: its share of the learned vectors, and whether the latest experience had any."""

    number: int
    share: float
    recent: bool


class RegimeTest:
    """The distance between the live and the learned mix of regimes, anomalies left out.

    Total variation over R regimes. The threshold is the larger of the smallest change worth a word
    and of what sampling n rows alone explains (Bretagnolle-Huber-Carol):
    `sqrt((R log 2 + log(1 / chance)) / (2 n))`.
    """

    def __init__(self, known: Sequence[Known]) -> None:
        self._known = tuple(known)
        self._windows = Windows((len(self._known) + 1,))

    def update(self, counts: NDArray[np.int64]) -> None:
        """Add counts (R + 1,) of live rows: anomalies, then each regime; others are passed."""
        self._windows.update(counts)

    def verdict(self) -> MixFinding:
        """Return statistic, threshold and alarm; of every regime its shares and its state.

        `returning`: there, and absent from the latest experience. `none`: the share of live rows
        that no regime explains. Shares are null while there are too few rows.
        """
        counts = self._windows.counts
        rows, explained = int(counts.sum()), int(counts[1:].sum())
        if rows < _LEAST or not explained:
            known = tuple(_share(one, None) for one in self._known)
            none = None if rows < _LEAST else 1.0
            return MixFinding(statistic=0.0, threshold=1.0, alarm=False, none=none, known=known)
        live = counts[1:] / explained
        learned = np.array([one.share for one in self._known])
        noise = (len(live) * math.log(2) - math.log(_CHANCE)) / (2 * explained)
        threshold = min(1.0, max(_SMALLEST_CHANGE, math.sqrt(noise)))
        known = tuple(_share(one, n / rows) for one, n in zip(self._known, counts[1:], strict=True))
        found = finding(0.5 * float(np.abs(live - learned).sum()), threshold)
        none = round(int(counts[0]) / rows, 6)
        return MixFinding(found.statistic, found.threshold, found.alarm, none, known)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts of both windows."""
        return self._windows.to_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s answer."""
        self._windows.restore(state)


def _share(one: Known, live: float | None) -> RegimeShare:
    state: Presence = "unknown"
    if live is not None:
        state = ("present" if one.recent else "returning") if live >= PRESENT else "absent"
    share = None if live is None else round(float(live), 6)
    return RegimeShare(one.number, round(float(one.share), 6), share, state)
