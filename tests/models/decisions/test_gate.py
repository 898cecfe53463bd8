import math

import msgspec
import pytest

from models.decisions import gate as deciding
from models.decisions.gate import TOLERANCE, Verdict
from models.decisions.shadow_result import ShadowResult
from models.parts.lineage import Alarms, Evidence


def gate(evidence: dict) -> Verdict:
    """Return the gate's decision on the given parts of the evidence; all other parts are good."""
    given = {"n_new": 100, "new": {"candidate": 0.01}} | evidence
    shadow = given.pop("shadow", None)
    for name, filled in (("synthetic", {"n": 1}), ("anchor", {"n": 1}), ("labelled", _LABELLED)):
        if name in given:
            given[name] = filled | given[name]
    converted = msgspec.convert(given, Evidence)
    return deciding.gate(converted, shadow=shadow and msgspec.convert(shadow, ShadowResult))


_LABELLED = {"anomalies": 0, "normals": 0, "known": 0, "kept": 0}


@pytest.mark.parametrize(
    ("new", "old", "passed"),
    [
        ((0.01, 0.50), (0.01, 0.01), True),
        ((0.01, 0.50), (0.01 + TOLERANCE + 0.001, 0.01), False),
        ((0.08, 0.01), (0.01, 0.01), False),
        ((0.01, 0.01), (0.01 + TOLERANCE - 0.001, 0.01), True),
        ((0.01, 0.01), (0.39, 0.20), True),
        ((0.01, 0.01), (0.41, 0.20), False),
    ],
)
def test_a_candidate_may_be_worse_only_within_the_tolerance(
    new: tuple, old: tuple, passed: bool
) -> None:
    """A candidate may alarm more often than the champion only within the tolerance.

    On old normals the tolerance is the champion's rate if that is higher.
    """
    names = ("candidate", "champion")
    verdict = gate(
        {"new": dict(zip(names, new, strict=True)), "old": dict(zip(names, old, strict=True))}
    )
    assert verdict.passed is passed
    assert bool(verdict.reasons) is not passed


def test_the_first_version_passes() -> None:
    """The first version passes, because there is nothing to compare it with."""
    assert gate({"new": {"candidate": 0.4}}).passed


@pytest.mark.parametrize(("share", "passed"), [(0.01, True), (0.5, True), (0.51, False)])
def test_an_experience_that_was_not_learned_does_not_pass(share: float, passed: bool) -> None:
    """A candidate that did not learn its experience fails, even if the champion is no better."""
    rates = {"candidate": share, "champion": 1.0}
    verdict = gate({"new": rates, "unlearned": share})
    assert verdict.passed is passed
    assert passed or "was not learned" in verdict.reasons[0]


def _figures(**figures: float) -> dict:
    return {"auroc": 0.98, "apart": 0.9, "found": 0.9} | figures


@pytest.mark.parametrize(
    ("candidate", "beside_champion", "beside_anchor"),
    [
        ({}, 0, 0),
        ({"auroc": 0.92}, 1, 0),
        ({"apart": 0.8}, 1, 0),
        ({"found": 0.8}, 1, 0),
        ({"auroc": 0.86, "apart": 0.6, "found": 0.6}, 3, 3),
    ],
)
def test_synthetic_anomalies_must_be_found_nearly_as_often(
    candidate: dict, beside_champion: int, beside_anchor: int
) -> None:
    """A candidate must find nearly as many synthetic anomalies as champion and anchor."""
    evidence = {"candidate": _figures(**candidate)}
    verdict = gate({"synthetic": evidence | {"champion": _figures()}})
    assert len(verdict.reasons) == beside_champion
    assert all("under the champion" in reason for reason in verdict.reasons)
    verdict = gate({"anchor": evidence | {"anchor": _figures()}})
    assert len(verdict.reasons) == beside_anchor
    assert all("under the anchor" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(("alarms_on_new", "reasons"), [(0.9, 2), (0.4, 1)])
def test_a_range_that_does_not_fit_is_named_with_what_to_do(
    alarms_on_new: float, reasons: int
) -> None:
    """If most of the experience was new and the candidate finds less, a reason gives advice."""
    blurred = {"candidate": _figures(found=0.8), "champion": _figures()}
    verdict = gate({"synthetic": blurred, "new": {"candidate": 0.01, "champion": alarms_on_new}})
    assert len(verdict.reasons) == reasons
    assert ("+regime" in verdict.reasons[-1]) is (alarms_on_new > 0.5)


def test_rows_labelled_normal_are_named_where_less_is_found() -> None:
    """If a person vouched for some rows, the reasons say what they cost and who may accept it."""
    blurred = {"candidate": _figures(found=0.8), "champion": _figures()}
    reasons = gate({"synthetic": blurred, "vouched": {"n": 22, "still": 0}}).reasons
    assert reasons[-1].startswith("rows labelled normal: 22 are among the new normals")
    assert reasons[-1].endswith("promote this version by hand")
    kept = {"candidate": _figures(), "champion": _figures()}
    assert gate({"synthetic": kept, "vouched": {"n": 22, "still": 0}}).passed


@pytest.mark.parametrize(
    ("known", "kept", "passed"), [(4, 0, True), (30, 23, True), (30, 22, False)]
)
def test_labelled_anomalies_must_still_be_found(known: int, kept: int, passed: bool) -> None:
    """With enough labelled anomalies, three quarters of them must still be found."""
    assert gate({"labelled": {"known": known, "kept": kept, "normals": 0}}).passed is passed


@pytest.mark.parametrize(("normals", "passed"), [(39, True), (40, False)])
def test_vectors_labelled_normal_must_not_alarm(normals: int, passed: bool) -> None:
    """With enough vectors labelled normal, not many more than under the champion may alarm."""
    evidence = {"normals": normals, "candidate": {"alarms": 0.1}, "champion": {"alarms": 0.0}}
    assert gate({"labelled": evidence}).passed is passed


@pytest.mark.parametrize(("asked", "passed"), [(500, False), (501, True)])
def test_live_traffic_must_not_alarm_more(asked: int, passed: bool) -> None:
    """With enough live traffic, not many more vectors may alarm than under the champion."""
    rates = {"candidate": 0.2, "champion": 0.02}
    assert gate({"shadow": {"asked": asked, "n": 500, **rates}}).passed is passed


def test_evidence_that_is_not_a_number_rejects() -> None:
    """NaN is rejected: no comparison with NaN may count as passed."""
    new = Alarms(candidate=math.nan, champion=0.01)
    verdict = deciding.gate(Evidence(n_new=100, new=new))
    assert verdict.reasons == ["the evidence is not finite: new.candidate"]


def test_rows_labelled_normal_stop_alarming() -> None:
    """A candidate that still alarms on most of the rows labelled normal is rejected."""
    good = {"new": {"candidate": 0.01}, "vouched": {"n": 58, "still": 29}}
    assert gate(good).passed
    bad = {**good, "vouched": {"n": 58, "still": 30}}
    assert gate(bad).reasons == [
        "rows labelled normal: the candidate still alarms on 30 of the 58 that it learned"
    ]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"old": {"anchor": 0.0, "candidate": 0.11}}, None),
        ({"old": {"anchor": 0.0, "candidate": 0.12}}, "the anchor's normals"),
        ({"old": {"anchor": 0.38, "candidate": 0.59}}, None),  # the draws are poor
        ({"old": {"anchor": 0.38, "candidate": 0.77}}, "the anchor's normals"),
        ({"walked": {"n": 200, "unexplained": 0.1}}, None),
        ({"walked": {"n": 200, "unexplained": 0.11}}, "small steps"),
        ({"walked": {"n": 19, "unexplained": 0.9}}, None),
    ],
)
def test_small_steps_away_from_the_anchor_are_stopped(more: dict, reason: str | None) -> None:
    """The gate bounds alarms on the anchor's normals, and rows that only the anchor finds rare."""
    walked = {"anchor": 0.3, "champion": 0.02} | more.get("walked", {})
    evidence = {"anchor": _figures(), "candidate": _figures()} | more
    if "walked" in more:
        evidence["walked"] = walked
    reasons = gate({"anchor": evidence}).reasons
    assert len(reasons) == (reason is not None)
    assert all(reason in given for given in reasons)
