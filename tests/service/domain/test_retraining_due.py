"""The rule for when a detector is due."""

from dataclasses import replace

import pytest

from service.domain.detector import Detector, Mute, Retraining
from service.domain.detector_config import DetectorConfig, Retrain
from service.domain.drift_report import Drift
from service.domain.retraining_due import due, due_at, urgency
from service.store.detector_state import from_state

_NOW = 1_800_000_000.0
_EMPTY = from_state(
    "pump", {b"uid": b"u", b"config": b"{}", b"champion": b"", b"retraining": b"idle"}, None
)


def _detector(buffered: int = 100, age: float = 0.0, trigger: Retrain | None = None, **more):
    config = DetectorConfig(retrain=trigger or Retrain())
    detector: Detector = replace(
        _EMPTY, config=config, buffered=buffered, buffer_oldest=_NOW - age if buffered else None
    )
    return replace(detector, **more)


@pytest.mark.parametrize(
    ("detector", "reason"),
    [
        (_detector(999), None),
        (_detector(1000), "count"),
        (_detector(1000, trigger=Retrain(paused=True)), None),
        (_detector(32, age=3599), None),
        (_detector(32, age=3600), "age"),
        (_detector(32, age=-3600), None),  # the clock went back by less than the time to wait
        (_detector(32, age=-3601), "age"),  # the clock went back by more: the age is unknown
        (_detector(31, age=3600), None),
        (_detector(32, age=3600, trigger=Retrain(paused=True)), None),
        (_detector(31, trigger=Retrain(min_vectors=10)), None),
        (_detector(32, trigger=Retrain(min_vectors=10)), "count"),
        (_detector(10**6, age=1e9, trigger=Retrain(min_vectors=None, max_age_seconds=None)), None),
        (_detector(10**6, age=1e9, trigger=Retrain(min_vectors=None)), "age"),
        (_detector(32, requested=1), "by hand"),
        (_detector(32, requested=1, trigger=Retrain(paused=True)), "by hand"),
        (_detector(32, requested=1, served=1), None),
        (_detector(31, requested=1), None),
        (_detector(0, requested=1), None),
        (_detector(32, retraining=Retraining("running", 0.5)), "unfinished"),
        (_detector(0), None),
    ],
)
def test_a_detector_is_due_by_hand_by_count_or_by_age(detector, reason):
    """The truth table of the triggers."""
    assert due(detector, _NOW) == reason


@pytest.mark.parametrize(
    ("detector", "after"),
    [
        (_detector(1000), 0),
        (_detector(32, age=600), 3000),
        (_detector(32, age=3600), 0),
        (_detector(31, age=600), None),
        (_detector(32, trigger=Retrain(max_age_seconds=None)), None),
        (_detector(1000, mute=Mute(_NOW + 60, "", "")), 60),
        (_detector(32, age=3600, mute=Mute(_NOW + 60, "", "")), 60),
        (_detector(32, age=600, mute=Mute(_NOW + 60, "", "")), 3000),
        (_detector(32, requested=1, mute=Mute(_NOW + 60, "", "")), 0),
        (_detector(1000, trigger=Retrain(paused=True), mute=Mute(_NOW + 60, "", "")), None),
    ],
)
def test_a_detector_that_waits_says_when_it_is_due(detector, after):
    """A detector that waits for its age or the end of a mute says when; otherwise None."""
    at = due_at(detector, _NOW)
    assert at == (None if after is None else pytest.approx(_NOW + after, abs=0.01))
    assert at is None or due(detector, at)


def test_urgency_weighs_requests_drift_and_backlog():
    """Requests, drift and backlog weigh at most fourfold each, so waiting decides in the end."""
    plain, full = _detector(1000), _detector(10**6)
    requested, drifting = replace(plain, requested=1), replace(plain, drift=Drift("new_regime"))
    assert (
        urgency(requested, 0) == urgency(drifting, 0) == urgency(full, 0) == 4 * urgency(plain, 0)
    )
    assert urgency(replace(full, requested=1), 0) == 16 * urgency(plain, 0)
    assert urgency(plain, 200) > urgency(replace(full, requested=1), 0)
    assert urgency(plain, 2) > urgency(plain, 1)


def test_a_training_that_ends_with_its_workers_lets_others_go_first():
    """A detector that has waited for a day and ended twenty workers comes after one due now."""
    deadly = _detector(interrupted=20, requested=1)
    assert urgency(deadly, 86_400.0) < urgency(_detector(), 0.0)
    assert urgency(replace(deadly, interrupted=0), 86_400.0) > urgency(_detector(), 0.0)
