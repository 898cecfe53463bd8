"""The gate decides from evidence whether a candidate may become champion."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from models.decisions.admission import ALPHA
from models.decisions.shadow_result import ShadowResult
from models.parts.lineage import (
    Anchored,
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
# How much lower each figure on synthetic anomalies may be than the champion's (BLURRED) and the
# anchor's (MOVED). In benchmarks/gate.py sound candidates lose at most four points. A candidate
# that forgot or learned noise loses more than this in at least one figure. A second regime on top
# of a hundred vectors costs up to six points of `found`; noise costs seven or more.
BLURRED = {"auroc": 0.03, "apart": 0.05, "found": 0.07}
MOVED = {"auroc": 0.10, "apart": 0.20, "found": 0.25}
# STRAYED: how much higher than the anchor's the candidate's alarm rate may be on normals drawn from
# the anchor. WALKED: the share of new normals on which the anchor alone may alarm. A drift in small
# steps shows first in these two figures.
STRAYED = 0.10
WALKED, FEWEST_WALKED = 0.10, 20
# The share of an experience that may still have p <= 0.01 under the candidate. A candidate that did
# not learn its experience is useless, even if it is no worse than the champion.
UNLEARNED = 0.5
NEWS = 0.5  # the experience is a new regime if the champion alarms on more than this share of it
LABELLED_KEPT = 0.75  # the share of labelled anomalies to keep; sound candidates keep 93 % or more
FEWEST_LABELLED = 5

_MEANING = {
    "auroc": "old normals and anomalies rank closer together, by AUROC",
    "apart": "fewer score above 99 % of old normals, so it forgot some of those",
    "found": "fewer are found at 5 % false alarms, so its threshold rose, as noise makes it",
}


class Verdict(NamedTuple):
    """Whether the candidate passed; if not, all reasons."""

    passed: bool
    reasons: list[str]


def gate(evidence: Evidence, shadow: ShadowResult | None = None) -> Verdict:
    """Decide on the lineage's `evidence`, and on the result of a `shadow` stage if any.

    The first version has no champion to be compared with and passes. Any other candidate fails for
    each of these reasons:

    - It alarms more often than the champion, by more than TOLERANCE, on `new` normals (those of
      the experience that it was not trained on), on `old` normals (drawn from the champion's
      generator or taken from the calibration), on vectors labelled normal, or on live traffic. Live
      traffic counts once as many rows were seen as were asked for.
    - More than UNLEARNED of the new normals still have p <= 0.01 under it.
    - It separates synthetic anomalies worse than the champion by more than BLURRED, or worse than
      the anchor by more than MOVED.
    - It alarms more often than the anchor, by more than STRAYED, on normals drawn from the anchor;
      or the anchor alone alarms on more than WALKED of the new normals.
    - It alarms on more than half of the rows labelled normal that it learned.
    - It finds less than LABELLED_KEPT of the labelled anomalies that champion or anchor find.
    - A figure of the evidence is not a finite number.

    >>> from models.parts.lineage import Alarms, Both
    >>> new = Alarms(candidate=0.01, champion=0.9)
    >>> gate(Evidence(n_new=100, new=new))
    Verdict(passed=True, reasons=[])
    >>> gate(Evidence(n_new=100, new=new, old=Both(candidate=0.40, champion=0.01))).reasons
    ['old normals: the candidate alarms on 40.0 %, the champion on 1.0 % (tolerance 5.0 points)']
    """
    evidence_fields = evidence.to_dict() | ({"shadow": shadow.to_dict()} if shadow else {})
    if broken := sorted(_not_finite(evidence_fields)):
        reasons = [f"the evidence is not finite: {', '.join(broken)}"]
        return Verdict(passed=False, reasons=reasons)
    new, old = evidence.new, evidence.old
    reasons = [
        *_alarming("new normals", new.candidate, new.champion),
        *_not_learned(evidence.unlearned),
        *(_alarming("old normals", old.candidate, old.champion) if old else ()),
        *_alarming_live(shadow),
        *_alarming_labelled(evidence.labelled),
        *_still_alarming(evidence.vouched),
        *_beside_champion(evidence.synthetic, evidence.new.champion),
        *_beside_anchor(evidence.anchor),
        *_unlearned(evidence.labelled),
    ]
    return Verdict(not reasons, reasons)


def _not_finite(evidence_fields: Mapping[str, object], path: str = "") -> Iterator[str]:
    for name, value in evidence_fields.items():
        if isinstance(value, Mapping):
            yield from _not_finite(value, f"{path}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{path}{name}"


def _alarming(what: str, candidate: float | None, champion: float | None) -> Iterator[str]:
    if candidate is not None and champion is not None and candidate > champion + TOLERANCE:
        yield (
            f"{what}: the candidate alarms on {_percent(candidate)}, the champion on "
            f"{_percent(champion)} (tolerance {100 * TOLERANCE:.1f} points)"
        )


def _not_learned(share: float | None) -> Iterator[str]:
    if share is not None and share > UNLEARNED:
        yield (
            f"new normals: {_percent(share)} of them are still as rare as one in a hundred (at "
            f"most {_percent(UNLEARNED)}): the experience was not learned; send more rows like "
            "it, or retrain with a larger w_new"
        )


def _alarming_labelled(labelled: Labelled | None) -> Iterator[str]:
    # With so few vectors, two more alarms would already exceed the tolerance.
    if labelled is None or labelled.normals * TOLERANCE < 2.0:
        return
    if labelled.candidate is not None and labelled.champion is not None:
        alarms = labelled.candidate.alarms, labelled.champion.alarms
        yield from _alarming("vectors labelled normal", *alarms)


def _still_alarming(vouched: Vouched | None) -> Iterator[str]:
    if vouched is not None and 2 * vouched.still > vouched.n:
        yield (
            f"rows labelled normal: the candidate still alarms on {vouched.still} of the "
            f"{vouched.n} that it learned"
        )


def _alarming_live(shadow: ShadowResult | None) -> Iterator[str]:
    if shadow is not None and shadow.n * TOLERANCE >= 2.0 and shadow.n >= shadow.asked:
        yield from _alarming("live traffic", shadow.candidate, shadow.champion)


def _beside_champion(synthetic: Synthetic | None, news: float | None) -> Iterator[str]:
    """Yield each figure that fell too far; if the share `news` is large, also advice."""
    if synthetic is None:
        return
    lost = list(_blind("champion", synthetic.candidate, synthetic.champion, BLURRED))
    yield from lost
    if lost and news is not None and news > NEWS:
        yield (
            f"the range: {_percent(news)} of the experience is outside of what the champion "
            "knows, and one scale and one threshold do not fit both; start a new detector with a "
            "first batch that spans both, or choose the score auto or one with +regime"
        )


def _blind(
    name: str, candidate: Figures, other: Figures, tolerances: Mapping[str, float]
) -> Iterator[str]:
    for figure, tolerance in tolerances.items():
        mine, theirs = getattr(candidate, figure), getattr(other, figure)
        if mine < theirs - tolerance:
            figures = f"{mine:.3f}, the {name}'s {theirs:.3f} (tolerance {tolerance:g})"
            yield f"synthetic anomalies: {_MEANING[figure]}: the candidate's figure is {figures}"


def _beside_anchor(anchor: Anchored | None) -> Iterator[str]:
    """Yield each figure that shows how far small steps have led away from the anchor."""
    if anchor is None:
        return
    yield from _blind("anchor", anchor.candidate, anchor.anchor, MOVED)
    old, walked = anchor.old, anchor.walked
    if old and old.candidate > max(old.anchor, ALPHA) + STRAYED:
        yield (
            f"the anchor's normals: the candidate alarms on {_percent(old.candidate)} of them, "
            f"the anchor on {_percent(old.anchor)} (tolerance {100 * STRAYED:.1f} points)"
        )
    if walked and walked.n >= FEWEST_WALKED and walked.unexplained > WALKED:
        yield (
            f"new normals: the anchor alarms on {_percent(walked.anchor)} of them, the champion "
            f"on {_percent(walked.champion)}, and {_percent(walked.unexplained)} did not "
            f"alarm when their like came (at most {_percent(WALKED)}): small steps led away from "
            "what the anchor knew"
        )


def _unlearned(labelled: Labelled | None) -> Iterator[str]:
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
