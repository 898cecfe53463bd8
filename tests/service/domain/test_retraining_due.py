"""The one rule that says when a detector is due."""

from dataclasses import replace

import pytest

from service.domain.detector import Detector, Retraining
from service.domain.detector_config import DetectorConfig, Retrain
from service.domain.retraining_due import due
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
        (_detector(32, age=-3601), "age"),  # by more: nobody knows how old it is
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
