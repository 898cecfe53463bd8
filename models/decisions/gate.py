"""The gate decides from evidence whether a candidate may become champion."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from models.decisions.admission import ALPHA
from models.decisions.shadow_result import ShadowResult
from models.parts.lineage import (
    Anchored,
    ComparedAlarms,
    Evidence,
    Figures,
    Labelled,
    Synthetic,
    Vouched,
)

# A candidate is worse than the champion if its alarm rate is higher by more than this. Generated
# vectors have a heavier tail than real ones. The rates of two sound versions, each calibrated on a
# hundred normals, differ by up to three points. A candidate that forgot differs by tens of points.
TOLERANCE = 0.05
# How much lower each figure on synthetic anomalies may be than the champion's (BELOW_CHAMPION) and
# than the anchor's (BELOW_ANCHOR). In benchmarks/gate.py real regimes cost at most 3 points of
# `auroc` and 6 of `apart`, and nearly always less than 6 of `found`. A candidate that forgot loses
# 6 points of `auroc` or more.
BELOW_CHAMPION = {"auroc": 0.035, "apart": 0.07, "found": 0.07}
BELOW_ANCHOR = {"auroc": 0.10, "apart": 0.20, "found": 0.25}
# The next two bounds are for drift in small steps, which shows first in these two figures. On
# normals drawn from the anchor, the candidate's alarm rate may be higher than the anchor's by
# ALARMS_ABOVE_ANCHOR. The share MOST_UNEXPLAINED of the new normals may be `unexplained`; this is
# checked for FEWEST_NEW rows or more.
ALARMS_ABOVE_ANCHOR = 0.10
MOST_UNEXPLAINED, FEWEST_NEW = 0.10, 20
# The share of an experience that may still have p <= 0.01 under the candidate. A candidate that did
# not learn its experience is useless, even if it is no worse than the champion.
MOST_UNLEARNED = 0.5
NEW_REGIME = 0.5  # an experience is a new regime if the champion alarms on more than this share
LABELLED_KEPT = 0.75  # the share of labelled anomalies to keep; sound candidates keep 93 % or more
FEWEST_LABELLED = 5

_FIGURES = {
    "auroc": "their AUROC against old normals",
    "apart": "the share of them that scores above 95 % of old normals",
    "found": "the share of them with p <= 5 %",
}
_CAUSES = {
    "auroc": "",
    "apart": "; it forgot some of the old normals",
    "found": "; its threshold rose: the new rows are noise, anomalies or widely scattered normals",
}


class Verdict(NamedTuple):
    """Whether the candidate passed; if not, all reasons."""

    passed: bool
    reasons: list[str]


def gate(evidence: Evidence, shadow: ShadowResult | None = None) -> Verdict:
    """Decide on the lineage's `evidence`, and on the result of a `shadow` stage if any.

    The first version has no champion to be compared with and passes. Any other candidate fails for
    each of these reasons:

    - Its alarm rate exceeds the champion's by more than TOLERANCE on `new` normals, which are the
      rows of the experience that it was not trained on.
    - The same on `old` normals, which are drawn vectors or come from the calibration. There the
      tolerance is the champion's rate if that is higher.
    - The same on vectors labelled normal, or on live traffic once enough rows of it were judged.
    - More than MOST_UNLEARNED of the new normals still have p <= 0.01 under it.
    - It separates synthetic anomalies worse than the champion by more than BELOW_CHAMPION, or worse
      than the anchor by more than BELOW_ANCHOR.
    - Its alarm rate on normals drawn from the anchor exceeds the anchor's by more than
      ALARMS_ABOVE_ANCHOR, or by more than the anchor's rate if that is higher.
    - The anchor alarms on more than MOST_UNEXPLAINED of the new normals although they are usual to
      the champion, and so was their regime when it came.
    - It alarms on more than half of the rows labelled normal that it learned.
    - It finds less than the share LABELLED_KEPT of the labelled anomalies that champion or anchor
      find.
    - A figure of the evidence is not a finite number.

    >>> from models.parts.lineage import Alarms, ComparedAlarms
    >>> new = Alarms(candidate=0.01, champion=0.9)
    >>> gate(Evidence(n_new=100, new=new))
    Verdict(passed=True, reasons=[])
    >>> old = ComparedAlarms(candidate=0.40, champion=0.01)
    >>> gate(Evidence(n_new=100, new=new, old=old)).reasons
    ['old normals: the candidate alarms on 40.0 %, the champion on 1.0 % (tolerance 5.0 points)']
    """
    evidence_fields = evidence.to_dict() | ({"shadow": shadow.to_dict()} if shadow else {})
    if broken := sorted(_not_finite(evidence_fields)):
        reasons = [f"the evidence is not finite: {', '.join(broken)}"]
        return Verdict(passed=False, reasons=reasons)
    new, old = evidence.new, evidence.old
    reasons = [
        *_alarms_more("new normals", new.candidate, new.champion),
        *_not_learned(evidence.unlearned),
        *(_alarms_more_on_old(old) if old else ()),
        *_alarms_more_on_traffic(shadow),
        *_alarms_more_on_labelled(evidence.labelled),
        *_alarms_on_learned(evidence.vouched),
        *_finds_less_than_champion(evidence.synthetic, evidence.new.champion, evidence.vouched),
        *_moved_from_anchor(evidence.anchor),
        *_misses_labelled(evidence.labelled),
    ]
    return Verdict(not reasons, reasons)


def _not_finite(evidence_fields: Mapping[str, object], path: str = "") -> Iterator[str]:
    for name, value in evidence_fields.items():
        if isinstance(value, Mapping):
            yield from _not_finite(value, f"{path}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{path}{name}"


def _alarms_more(
    rows: str, candidate: float | None, champion: float | None, tolerance: float = TOLERANCE
) -> Iterator[str]:
    if candidate is not None and champion is not None and candidate > champion + tolerance:
        yield (
            f"{rows}: the candidate alarms on {_percent(candidate)}, the champion on "
            f"{_percent(champion)} (tolerance {100 * tolerance:.1f} points)"
        )


def _alarms_more_on_old(old: ComparedAlarms) -> Iterator[str]:
    tolerance = _tolerance_on_drawn(TOLERANCE, old.champion)
    yield from _alarms_more("old normals", old.candidate, old.champion, tolerance)


def _tolerance_on_drawn(tolerance: float, own_alarms: float) -> float:
    """Return the tolerance on vectors that stand in for a version's old normals.

    If the version itself alarms on a fifth of them, they represent its old normals poorly: so many
    lie near its threshold that a sound candidate may alarm on another fifth.
    """
    return max(tolerance, own_alarms)


def _not_learned(share: float | None) -> Iterator[str]:
    if share is not None and share > MOST_UNLEARNED:
        yield (
            f"new normals: {_percent(share)} of them still have p <= 1 % under the candidate (at "
            f"most {_percent(MOST_UNLEARNED)}): the experience was not learned; send more such "
            "rows, or retrain with a larger w_new"
        )


def _alarms_more_on_labelled(labelled: Labelled | None) -> Iterator[str]:
    # With fewer vectors, two more alarms would already exceed the tolerance.
    if labelled is None or labelled.normals * TOLERANCE < 2.0:
        return
    if labelled.candidate is not None and labelled.champion is not None:
        alarms = labelled.candidate.alarms, labelled.champion.alarms
        yield from _alarms_more("vectors labelled normal", *alarms)


def _alarms_on_learned(vouched: Vouched | None) -> Iterator[str]:
    if vouched is not None and 2 * vouched.still > vouched.n:
        yield (
            f"rows labelled normal: the candidate still alarms on {vouched.still} of the "
            f"{vouched.n} that it learned"
        )


def _alarms_more_on_traffic(shadow: ShadowResult | None) -> Iterator[str]:
    if shadow is not None and shadow.n * TOLERANCE >= 2.0 and shadow.n >= shadow.asked:
        yield from _alarms_more("live traffic", shadow.candidate, shadow.champion)


def _finds_less_than_champion(
    synthetic: Synthetic | None, new_alarms: float | None, vouched: Vouched | None
) -> Iterator[str]:
    """Yield a reason for each figure that is too low, and advice where its cause is known.

    `new_alarms` is the share of the new normals on which the champion alarms.
    """
    if synthetic is None:
        return
    lost = list(_lower_figures("champion", synthetic.candidate, synthetic.champion, BELOW_CHAMPION))
    yield from lost
    if lost and vouched is not None and vouched.n:
        yield (
            f"rows labelled normal: {vouched.n} are among the new normals; where they lie, "
            "anomalies are missed from now on; if they are worth it, promote this version by hand"
        )
    if lost and new_alarms is not None and new_alarms > NEW_REGIME:
        yield (
            f"range of values: the champion alarms on {_percent(new_alarms)} of the new normals, "
            "and one scaler with one threshold does not fit the old and the new values; choose a "
            "score with +regime, which has one threshold for each regime"
        )


def _lower_figures(
    name: str, candidate: Figures, other: Figures, tolerances: Mapping[str, float]
) -> Iterator[str]:
    for figure, tolerance in tolerances.items():
        value, other_value = getattr(candidate, figure), getattr(other, figure)
        if value < other_value - tolerance:
            yield (
                f"synthetic anomalies: {_FIGURES[figure]} is {value:.3f} under the candidate and "
                f"{other_value:.3f} under the {name} (tolerance {tolerance:g}){_CAUSES[figure]}"
            )


def _moved_from_anchor(anchor: Anchored | None) -> Iterator[str]:
    """Yield a reason for each figure by which the candidate is too far from the anchor."""
    if anchor is None:
        return
    yield from _lower_figures("anchor", anchor.candidate, anchor.anchor, BELOW_ANCHOR)
    old, walked = anchor.old, anchor.walked
    tolerance = _tolerance_on_drawn(ALARMS_ABOVE_ANCHOR, old.anchor) if old else 0.0
    if old and old.candidate > max(old.anchor, ALPHA) + tolerance:
        yield (
            f"the anchor's normals: the candidate alarms on {_percent(old.candidate)} of them, "
            f"the anchor on {_percent(old.anchor)} (tolerance {100 * tolerance:.1f} points)"
        )
    if walked and walked.n >= FEWEST_NEW and walked.unexplained > MOST_UNEXPLAINED:
        yield (
            f"new normals: the anchor alarms on {_percent(walked.anchor)} of them, the champion "
            f"on {_percent(walked.champion)}; {_percent(walked.unexplained)} alarm under the "
            "anchor although they are usual to the champion, and so was their regime when it came "
            f"(at most {_percent(MOST_UNEXPLAINED)}): the detector moved away from the anchor in "
            "small steps"
        )


def _misses_labelled(labelled: Labelled | None) -> Iterator[str]:
    if labelled is None:
        return
    known, kept = labelled.known, labelled.kept
    if known >= FEWEST_LABELLED and kept < LABELLED_KEPT * known:
        yield (
            f"labelled anomalies: champion or anchor find {known}, the candidate finds {kept} of "
            f"them (at least {100 * LABELLED_KEPT:.0f} %); it learned similar rows as normal, or "
            "its threshold rose"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
