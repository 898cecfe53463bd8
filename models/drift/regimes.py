"""Compares the live with the learned shares of the regimes that a version knows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.drift.finding import MixFinding, Presence, RegimeShare, finding
from models.drift.windows import Windows

PRESENT = 0.01  # a regime is present from this share of live rows on
_LEAST = 100  # with fewer rows no share is reported
_SMALLEST_CHANGE = 0.2  # the smallest change of the mix that counts as drift, however many rows
_CHANCE = 1e-4  # the chance that one test finds drift without any


class LearnedRegime(NamedTuple):
    """A regime: its share of the learned vectors, and whether it was in the latest experience."""

    number: int
    share: float
    recent: bool


class RegimeTest(Windows):
    """The distance between the live and the learned mix of regimes, without anomalies.

    `update` takes counts (R + 1,) of live rows: the anomalies, then the rows of each regime. The
    distance is the total variation over R regimes. The threshold is the larger of two values: the
    smallest change that counts, and the distance that sampling n rows alone explains
    (Bretagnolle-Huber-Carol): `sqrt((R log 2 + log(1 / chance)) / (2 n))`.
    """

    def __init__(self, known: Sequence[LearnedRegime]) -> None:
        self._known = tuple(known)
        super().__init__((len(self._known) + 1,))

    def finding(self) -> MixFinding:
        """Return the finding, and the shares and the state of every regime.

        A `returning` regime is present but was not in the latest experience. `none` is the share of
        live rows that no regime explains. Shares are None while there are too few rows.
        """
        counts = self.counts
        rows, explained = int(counts.sum()), int(counts[1:].sum())
        if rows < _LEAST or not explained:
            known = tuple(_share(regime, None) for regime in self._known)
            none = None if rows < _LEAST else 1.0
            return MixFinding(statistic=0.0, threshold=1.0, alarm=False, none=none, known=known)
        live = counts[1:] / explained
        learned = np.array([regime.share for regime in self._known])
        noise = (len(live) * math.log(2) - math.log(_CHANCE)) / (2 * explained)
        threshold = min(1.0, max(_SMALLEST_CHANGE, math.sqrt(noise)))
        known = tuple(
            _share(regime, n / rows) for regime, n in zip(self._known, counts[1:], strict=True)
        )
        mix = finding(0.5 * float(np.abs(live - learned).sum()), threshold)
        none = round(int(counts[0]) / rows, 6)
        return MixFinding(mix.statistic, mix.threshold, mix.alarm, none, known)


def _share(regime: LearnedRegime, live: float | None) -> RegimeShare:
    state: Presence
    if live is None:
        state = "unknown"
    elif live < PRESENT:
        state = "absent"
    else:
        state = "present" if regime.recent else "returning"
    share = None if live is None else round(float(live), 6)
    return RegimeShare(regime.number, round(float(regime.share), 6), share, state)
