"""When a detector is due to learn again: the one place that decides it."""

from service.ages import is_over
from service.domain.detector import Detector


def due(detector: Detector, now: float) -> str | None:
    """Return why `detector` is to be retrained at `now` (unix time), or None when it is not.

    What was asked for by hand, or was begun and not ended, goes before the triggers of the
    config, which pause with `paused`. Without the vectors that a training needs nothing is due.
    """
    if detector.needed:
        return None
    if detector.requested > detector.served:
        return "by hand"
    if detector.retraining.state != "idle":
        return "unfinished"
    if detector.config.retrain.paused or detector.muted(now):
        return None
    return _triggered(detector, now)


def _triggered(detector: Detector, now: float) -> str | None:
    retrain = detector.config.retrain
    if retrain.min_vectors is not None and detector.buffered >= retrain.min_vectors:
        return "count"
    if retrain.on_drift and detector.drift.state == "new_regime":
        # While an incident is open what is buffered may be the fault: a person decides first.
        return None if detector.incidents.unfinished else "drift"
    if retrain.max_age_seconds is not None and detector.buffer_oldest is not None:
        # The store wrote the time; a clock ahead or behind of it moves the trigger by as much.
        age = now - detector.buffer_oldest
        return "age" if is_over(age, retrain.max_age_seconds) else None
    return None
