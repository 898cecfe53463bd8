"""The results of the drift tests, and the one state that follows from them.

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
    """The result of the test of one feature."""

    feature: str
    statistic: float
    threshold: float
    alarm: bool


class RegimeShare(Struct, frozen=True):
    """One regime's share of learned and of live rows; None while there are too few live rows.

    `state` is present, absent, unknown or returning. A returning regime is in the live traffic but
    was not in the latest experience.
    """

    regime: int
    learned: float
    live: float | None
    state: Presence


class MixFinding(Struct, frozen=True):
    """How far the mix of regimes moved; `none` is the share of live rows in no regime."""

    statistic: float
    threshold: float
    alarm: bool
    none: float | None
    known: tuple[RegimeShare, ...]


class Statistics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The results of all tests; `features` are the worst, worst first.

    `inputs` is how far all features together are beyond their thresholds; None in a result that an
    earlier release stored.
    """

    martingale: Finding | None = None
    adwin: Finding | None = None
    anomalies: Finding | None = None
    features: tuple[FeatureFinding, ...]
    inputs: Finding | None = None
    regimes: MixFinding | None = None


class Verdict(Struct, frozen=True):
    """The drift of a version's live traffic: the state, and the test results behind it."""

    state: State
    version: int
    statistics: Statistics


def finding(statistic: float, threshold: float) -> Finding:
    """Return the finding of a test that alarms from `threshold` on.

    >>> finding(3.2, 3.0)
    Finding(statistic=3.2, threshold=3.0, alarm=True)
    """
    return Finding(
        round(float(statistic), 6), round(float(threshold), 6), bool(statistic >= threshold)
    )
