"""The results of the drift tests, and the one state that they give together.

The fields of each part stand in the order in which they are stored and answered.
"""

from typing import Literal

from msgspec import Struct

Presence = Literal["present", "returning", "absent", "unknown"]
State = Literal["none", "known_regime", "new_regime", "degraded"]


class Finding(Struct, frozen=True):
    """The statistic of a test, its threshold, and whether the test alarms."""

    statistic: float
    threshold: float
    alarm: bool


class FeatureFinding(Struct, frozen=True):
    """What the test of one feature found."""

    feature: str
    statistic: float
    threshold: float
    alarm: bool


class RegimeShare(Struct, frozen=True):
    """One regime's share of learned and of live rows; null while live rows are too few.

    `state`: present, returning (there, and absent from the latest experience), absent or unknown.
    """

    regime: int
    learned: float
    live: float | None
    state: Presence


class MixFinding(Struct, frozen=True):
    """How far the mix of regimes moved; `none` is the share of live rows that none explains."""

    statistic: float
    threshold: float
    alarm: bool
    none: float | None
    known: tuple[RegimeShare, ...]


class Statistics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every test found; `features` are the worst, worst first. Earlier releases had fewer."""

    martingale: Finding | None = None
    adwin: Finding | None = None
    anomalies: Finding | None = None
    features: tuple[FeatureFinding, ...]
    regimes: MixFinding | None = None


class Verdict(Struct, frozen=True):
    """The drift of a version's live traffic: the state, and the tests that it follows from."""

    state: State
    version: int
    statistics: Statistics


def finding(statistic: float, threshold: float) -> Finding:
    """Return what a test found that alarms from `threshold` on.

    >>> finding(3.2, 3.0)
    Finding(statistic=3.2, threshold=3.0, alarm=True)
    """
    return Finding(
        round(float(statistic), 6), round(float(threshold), 6), bool(statistic >= threshold)
    )
