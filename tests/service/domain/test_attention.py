"""What needs a person at one detector: the same causes for which an alert fires."""

import re
from dataclasses import replace

import pytest

from models.drift.finding import Finding, MixFinding, Statistics
from service.domain.attention import KINDS, NAMED, of_detector, worst_first
from service.domain.detector import Detector, LastRetraining
from service.domain.drift_report import Drift
from service.domain.incident import Incident
from service.store.detector_state import from_state

_NOW = 1_800_000_000.0
_BOUND = 1000
_WELL = from_state(
    "pump", {b"uid": b"u", b"config": b"{}", b"champion": b"", b"retraining": b"idle"}, None
)


def _with(**more: object) -> Detector:
    return replace(_WELL, **more)


def _drift(*, inputs: bool, mix: bool) -> Drift:
    """Return the drift of a known regime in which these tests alarm."""
    quiet = Finding(0.0, 1.0, alarm=False)
    regimes = MixFinding(2.0, 1.0, alarm=mix, none=0.0, known=())
    statistics = Statistics(
        martingale=quiet,
        adwin=quiet,
        anomalies=quiet,
        features=(),
        inputs=Finding(2.0, 1.0, alarm=inputs),
        regimes=regimes,
    )
    return Drift("known_regime", statistics=statistics)


@pytest.mark.parametrize(
    ("detector", "unread", "kinds"),
    [
        (_WELL, None, []),
        (_WELL, 600.0, []),
        (_WELL, 601.0, ["unwatched"]),
        (_with(buffered=700, parked=100, buffer_oldest=_NOW), None, ["parked"]),
        (_with(buffered=700, parked=101, buffer_oldest=_NOW), None, ["full", "parked"]),
        (_with(buffered=32, buffer_oldest=_NOW - 6 * 3600), None, []),
        (_with(buffered=31, buffer_oldest=_NOW - 7 * 3600), None, []),
        (_with(buffered=32, buffer_oldest=_NOW - 7 * 3600), None, ["late"]),
        (_with(parked=5, last_retraining=LastRetraining("rejected", 2, None)), None, ["failed"]),
        (_with(quarantined=1), None, ["quarantine"]),
        (_with(drift=_drift(inputs=True, mix=False)), None, ["input"]),
        (_with(drift=_drift(inputs=True, mix=True)), None, []),
        (_with(drift=_drift(inputs=False, mix=True)), None, []),
    ],
)
def test_each_cause_of_an_alert_is_listed(
    detector: Detector, unread: float | None, kinds: list[str]
) -> None:
    """The bounds are those of the alert rules; `unread` is the age of the oldest unread rows."""
    since = None if unread is None else _NOW - unread
    items = of_detector(detector, [], _NOW, buffer_bound=_BOUND, unread_since=since)
    assert [item.kind for item in items] == kinds
    assert {item.kind for item in items} <= set(KINDS)


def test_a_rejected_retraining_says_what_a_person_can_do() -> None:
    """The item names the version to promote if all parked vectors are normal."""
    detector = _with(parked=5, last_retraining=LastRetraining("rejected", 2, None))
    (item,) = of_detector(detector, [], _NOW, buffer_bound=_BOUND)
    assert item.sentence.endswith("; if all of them are normal, promote version 2")


def test_many_incidents_of_a_detector_are_counted_in_one_line() -> None:
    """The severest incidents are named, and the others counted: a fault may reach many sources."""
    incidents = [
        (Incident(f"i{n}", f"m{n}", _NOW - n, _NOW, 2.0 + n % 7, 1e-4, 4, 1, 1), None)
        for n in range(1, 1001)
    ]
    items = of_detector(_WELL, incidents, _NOW, buffer_bound=_BOUND)
    assert len(items) == NAMED + 1
    *named, others = worst_first(items)
    assert all(re.match(r"m\d+: as rare as", item.sentence) for item in named)  # with the source
    assert all(item.path.startswith("/v1/detectors/pump/incidents/i") for item in named)
    assert others.sentence.startswith("995 milder incidents more, the first since ")
    assert (others.path, others.since) == ("/v1/detectors/pump/incidents", _NOW - 1000)
    assert len(of_detector(_WELL, incidents[:NAMED], _NOW, buffer_bound=_BOUND)) == NAMED


def test_an_entity_with_the_name_of_its_source_is_named_once() -> None:
    """The name of the source is left out if the name of the detector ends with it."""
    open_incident = (Incident("i1", "m1", _NOW, _NOW, 2.0, 1e-4, 4, 1, 1), None)
    entity = replace(_WELL, name="pump:m1")
    (item,) = of_detector(entity, [open_incident], _NOW, buffer_bound=_BOUND)
    assert item.sentence.startswith("as rare as")
