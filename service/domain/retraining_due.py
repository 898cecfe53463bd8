"""Decides when a detector is due for a retraining. Nothing else decides it."""

from models import MIN_VECTORS
from service.ages import is_over
from service.domain.detector import Detector

ATTEMPTS = 3  # failed attempts after which an experience is parked, so that later data is learned
_ROUNDING = 0.001  # seconds; the sum of two times is rounded
_URGENT = _BACKLOG = 4.0  # the largest weight of an urgent reason, and of an overfull buffer
_MOST_HALVINGS = 30  # of the priority of a detector whose trainings end with their workers
_HEAD_START_SECONDS = 10.0  # added to every wait, so that the weights count from the first moment


def due(detector: Detector, now: float) -> str | None:
    """Return why `detector` is due at `now` (seconds since 1970), or None if it is not due.

    Nothing is due without the vectors that a training needs. A retraining that a person requested,
    or that began and has not ended, is always due. In all other cases the triggers of the config
    decide. They do not count while the config says `paused` or the detector is muted, or after a
    buffer could not be read.
    """
    if detector.needed:
        return None
    if detector.requested > detector.served:
        return "by hand"
    if detector.retraining.state != "idle":
        return "unfinished"
    unread = detector.attempts >= ATTEMPTS  # otherwise parking set the number back to 0
    if unread or detector.config.retrain.paused or detector.muted(now):
        return None
    return _triggered(detector, now)


def due_at(detector: Detector, now: float) -> float | None:
    """Return when `detector` is due if nothing else changes, in seconds since 1970, or None.

    It may be due `now`, when its oldest vector reaches the maximum age, or when a mute ends.
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


def urgency(detector: Detector, waited: float) -> float:
    """Return the urgency of `detector`, which has been due for `waited` seconds.

    The detector with the largest value is retrained first. The value is the waiting time. It counts
    4 times if a person waits or a new regime was found, and up to 4 times if the buffer exceeds its
    trigger. Both factors are bounded, so no detector waits for ever. Each training that ended with
    its worker halves the value: if a training kills every worker, the others are learned first.
    """
    urgent = detector.requested > detector.served or detector.drift.state == "new_regime"
    backlog = detector.buffered / max(detector.config.retrain.min_vectors or 0, MIN_VECTORS)
    weight = (_URGENT if urgent else 1) * min(max(backlog, 1), _BACKLOG)
    halved: float = 2.0 ** -min(detector.interrupted, _MOST_HALVINGS)
    return (waited + _HEAD_START_SECONDS) * weight * halved


def _triggered(detector: Detector, now: float) -> str | None:
    retrain = detector.config.retrain
    if retrain.min_vectors is not None and detector.buffered >= retrain.min_vectors:
        return "count"
    if retrain.on_drift and detector.drift.state == "new_regime":
        # While an incident is open, the buffer may hold the fault: a person decides first.
        return None if detector.incidents.unfinished else "drift"
    if retrain.max_age_seconds is not None and detector.buffer_oldest is not None:
        # The store's clock dated the vector. If this clock differs, the trigger moves as much.
        age = now - detector.buffer_oldest
        return "age" if is_over(age, retrain.max_age_seconds) else None
    return None
