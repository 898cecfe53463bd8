"""The gate: may this candidate become champion? A pure function of evidence, with reasons."""

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

# How many more of the vectors a candidate may alarm on than the champion before it counts as
# worse. Generated vectors have a heavier tail than real ones, so that between two sound versions
# calibrated on a hundred normals each their rates differ by up to three points; a candidate that
# forgot differs by tens.
TOLERANCE = 0.05
# What a candidate may lose beside the champion of each figure on synthetic anomalies, and beside
# the anchor. By benchmarks/gate.py sound candidates lose four points at most, and those that
# forgot or learned noise more than this of one figure at least. A second regime on top of a
# hundred vectors costs up to six points of `found`, noise seven and more.
BLURRED = {"auroc": 0.03, "apart": 0.05, "found": 0.07}
MOVED = {"auroc": 0.10, "apart": 0.20, "found": 0.25}
# How many more of the normals that the anchor draws a candidate may alarm on, and the share of new
# ones that the anchor alone may find strange: a walk of small steps shows in these first.
STRAYED = 0.10
WALKED, FEWEST_WALKED = 0.10, 20
# Share of an experience that is as rare to the candidate as one normal in a hundred should be: a
# candidate that did not learn it serves nobody, though it is no worse than the champion.
UNLEARNED = 0.5
NEWS = 0.5  # share of the new normals that the champion alarms on: more are a regime of their own
LABELLED_KEPT = 0.75  # of the labelled anomalies; sound candidates keep 93 % and more
FEWEST_LABELLED = 5

_MEANING = {
    "auroc": "old normals and anomalies rank closer together, by AUROC",
    "apart": "fewer score above 99 % of old normals, so it forgot some of those",
    "found": "fewer are found at 5 % false alarms, so its threshold rose, as noise makes it",
}


class Verdict(NamedTuple):
    """Whether the candidate passed, and every reason why not."""

    passed: bool
    reasons: list[str]


def gate(
    evidence: Evidence, tolerance: float = TOLERANCE, shadow: ShadowResult | None = None
) -> Verdict:
    """Decide on a lineage's evidence, and on live traffic where a `shadow` stage saw some.

    The candidate may alarm at most `tolerance` more often than the champion on `new` normals, those
    of the experience that it was not trained on, on `old` ones, drawn from the champion's generator
    or those of the calibration, on those that people labelled normal, and on live traffic, where as
    much of it came as was asked for. Of the new normals at most UNLEARNED may still be as rare to
    it as one in a hundred. Synthetic anomalies it may tell a little worse than the champion, and
    than the anchor, however small the steps in between. Of the rows labelled normal that it learned
    it may alarm on half. Of the labelled anomalies that champion or anchor find it must find
    LABELLED_KEPT. What is not a finite number is no evidence. The first version has no champion to
    be compared with and passes.

    >>> from models.parts.lineage import Alarms, Both
    >>> new = Alarms(candidate=0.01, champion=0.9)
    >>> gate(Evidence(n_new=100, new=new))
    Verdict(passed=True, reasons=[])
    >>> gate(Evidence(n_new=100, new=new, old=Both(candidate=0.40, champion=0.01))).reasons
    ['old normals: the candidate alarms on 40.0 %, the champion on 1.0 % (tolerance 5.0 points)']
    """
    told = evidence.to_dict() | ({"shadow": shadow.to_dict()} if shadow else {})
    if broken := sorted(_not_finite(told)):
        reasons = [f"the evidence is not finite: {', '.join(broken)}"]
        return Verdict(passed=False, reasons=reasons)
    new, old = evidence.new, evidence.old
    reasons = [
        *_alarming("new normals", new.candidate, new.champion, tolerance),
        *_not_learned(evidence.unlearned),
        *(_alarming("old normals", old.candidate, old.champion, tolerance) if old else ()),
        *_alarming_live(shadow, tolerance),
        *_alarming_labelled(evidence.labelled, tolerance),
        *_still_alarming(evidence.vouched),
        *_beside_champion(evidence.synthetic, evidence.new.champion),
        *_beside_anchor(evidence.anchor),
        *_unlearned(evidence.labelled),
    ]
    return Verdict(not reasons, reasons)


def _not_finite(told: Mapping[str, object], path: str = "") -> Iterator[str]:
    for name, value in told.items():
        if isinstance(value, Mapping):
            yield from _not_finite(value, f"{path}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{path}{name}"


def _alarming(
    what: str, candidate: float | None, champion: float | None, tolerance: float
) -> Iterator[str]:
    if candidate is not None and champion is not None and candidate > champion + tolerance:
        yield (
            f"{what}: the candidate alarms on {_percent(candidate)}, the champion on "
            f"{_percent(champion)} (tolerance {100 * tolerance:.1f} points)"
        )


def _not_learned(share: float | None) -> Iterator[str]:
    if share is not None and share > UNLEARNED:
        yield (
            f"new normals: {_percent(share)} of them are still as rare as one in a hundred (at "
            f"most {_percent(UNLEARNED)}): the experience was not learned; send more rows like "
            "it, or retrain with a larger w_new"
        )


def _alarming_labelled(labelled: Labelled | None, tolerance: float) -> Iterator[str]:
    # Two alarms more are not too many.
    if labelled is None or labelled.normals * tolerance < 2.0:
        return
    if labelled.candidate is not None and labelled.champion is not None:
        alarms = labelled.candidate.alarms, labelled.champion.alarms
        yield from _alarming("vectors labelled normal", *alarms, tolerance)


def _still_alarming(vouched: Vouched | None) -> Iterator[str]:
    if vouched is not None and 2 * vouched.still > vouched.n:
        yield (
            f"rows labelled normal: of {vouched.n} that it learned the candidate still alarms "
            f"on {vouched.still}"
        )


def _alarming_live(shadow: ShadowResult | None, tolerance: float) -> Iterator[str]:
    if shadow is not None and shadow.n * tolerance >= 2.0 and shadow.n >= shadow.asked:
        yield from _alarming("live traffic", shadow.candidate, shadow.champion, tolerance)


def _beside_champion(synthetic: Synthetic | None, news: float | None) -> Iterator[str]:
    """Yield what the candidate sees less of, and what to do where `news` is what it learned."""
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
    """Yield how far small steps have led together."""
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
            f"labelled anomalies: of {known} that champion or anchor find the candidate finds "
            f"{kept} (at least {100 * LABELLED_KEPT:.0f} %); it learned their like as normal, or "
            "its threshold rose"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
