"""When a detector is due to learn again: the one place that decides it."""

from models import MIN_VECTORS
from service.ages import is_over
from service.domain.detector import Detector

_ROUNDING = 0.001  # the sum of two times is no exact number
_URGENT = _BACKLOG = 4.0  # most weight of an urgent reason, and of a buffer beyond its trigger
_HEAD_START_SECONDS = 10.0  # so that the weights tell detectors apart that are due since just now


def due(detector: Detector, now: float) -> str | None:
    """Return why `detector` is to be retrained at `now` (unix time), or None when it is not.

    A retraining that a person asked for, or that was begun and not ended, is due before the
    triggers of the config are looked at. `paused` pauses the triggers. Nothing is due without the
    vectors that a training needs.
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


def due_at(detector: Detector, now: float) -> float | None:
    """Return when `detector` is due: `now`, later by age or once a mute ends, or None.

    It holds as long as nothing else changes. Times are seconds since 1970.
    """
    if due(detector, now):
        return now
    later = []
    if detector.mute is not None:
        later.append(detector.mute.until)
    oldest, most = detector.buffer_oldest, detector.config.retrain.max_age_seconds
    if oldest is not None and most is not None:
        later.append(oldest + most + _ROUNDING)
    return next((at for at in sorted(later) if at > now and due(detector, at)), None)


def need(detector: Detector, waited: float) -> float:
    """Return how much `detector`, due for `waited` seconds, needs its retraining; the most first.

    The need is the waiting time, multiplied by up to 16 for a person who waits, for drift, and for
    a buffer beyond its trigger. The bound of 16 means that no detector waits for ever.
    """
    urgent = detector.requested > detector.served or detector.drift.state == "new_regime"
    backlog = detector.buffered / max(detector.config.retrain.min_vectors or 0, MIN_VECTORS)
    weight = (_URGENT if urgent else 1) * min(max(backlog, 1), _BACKLOG)
    return (waited + _HEAD_START_SECONDS) * weight


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
