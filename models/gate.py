"""The gate: may this candidate become champion? A pure function of evidence, with reasons."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# How many more of the vectors a candidate may alarm on than the champion before it counts as
# worse. Generated vectors have a heavier tail than real ones, so that between two sound versions
# calibrated on a hundred normals each their rates differ by up to three points; a candidate that
# forgot differs by tens.
TOLERANCE = 0.05


class Verdict(NamedTuple):
    """Whether the candidate passed, and every reason why not."""

    passed: bool
    reasons: list[str]


def gate(evidence: Mapping[str, Any], tolerance: float = TOLERANCE) -> Verdict:
    """Decide on `lineage["evidence"]`: alarm rates of candidate and champion, `new` and `old`.

    `new` are normals of the experience that the candidate was not trained on, `old` are drawn
    from the champion's generator. On both the candidate may alarm at most `tolerance` more often
    than the champion. The first version has no champion to be compared with and passes.

    >>> gate({"new": {"candidate": 0.01}})
    Verdict(passed=True, reasons=[])
    >>> gate({"new": {"candidate": 0.01, "champion": 0.9},
    ...       "old": {"candidate": 0.40, "champion": 0.01}}).reasons
    ['old normals: the candidate alarms on 40.0 %, the champion on 1.0 % (tolerance 5.0 points)']
    """
    reasons = []
    for regime in ("new", "old"):
        rates = evidence.get(regime, {})
        if "champion" in rates and rates["candidate"] > rates["champion"] + tolerance:
            candidate, champion = 100 * rates["candidate"], 100 * rates["champion"]
            reasons.append(
                f"{regime} normals: the candidate alarms on {candidate:.1f} %, the champion on "
                f"{champion:.1f} % (tolerance {100 * tolerance:.1f} points)"
            )
    return Verdict(not reasons, reasons)
