"""What a detector's status says, from the store's state and what this process serves."""

from typing import Any

from service import log
from service.champion import Champion
from service.detector import Detector
from service.knowledge import of_regimes
from service.parts import Parts
from service.problems import StoreUnavailable, UnknownDetector

_log = log.get(__name__)


def describe(detector: Detector, champion: Champion | None) -> dict[str, Any]:
    """Return the status document: of champion and generation, what is served here and now.

    A detector whose status cannot be told has `broken` in its place; the others keep theirs.
    """
    try:
        return _described(detector, champion)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("status not told", detector=detector.name)
        return {
            "name": detector.name,
            "generation": detector.generation,
            "broken": "Its status cannot be told; the log of this process says why.",
        }


def _described(detector: Detector, champion: Champion | None) -> dict[str, Any]:
    if champion is not None and champion.uid != detector.uid:
        champion = None
    return {
        "name": detector.name,
        "created_at": detector.created_at,
        "config": detector.config.to_dict(),
        "config_revision": champion.config_revision if champion else detector.config_revision,
        "dimension": detector.dimension,
        "champion": champion.number if champion else None,
        "generation": champion.generation if champion else 0,
        "threshold": champion.threshold.value if champion else None,
        "calibration": champion.threshold.calibration if champion else None,
        "labels": champion.threshold.labels if champion else None,
        "last_version": detector.last_version,
        "buffered": detector.buffered,
        "quarantined": detector.quarantined,
        "parked": detector.parked,
        "thinned": detector.thinned,
        "learned": detector.learned,
        "needed": detector.needed,
        "retraining": detector.retraining._asdict(),
        "last_retraining": detector.last_retraining,
        "retrains": detector.retrains,
        "drift": detector.drift,
        **of_regimes(detector, champion),
    }


async def existing(parts: Parts, name: str) -> Detector:
    """Return the detector as the store has it now; UnknownDetector, StoreUnavailable."""
    detector = await parts.stores.detectors.get(name)
    if detector is None:
        raise UnknownDetector("There is no such detector.")
    return detector


async def current(parts: Parts, name: str) -> dict[str, Any]:
    """Return the status, after this process caught up with the store."""
    detector = await parts.watcher.refresh(name)
    if detector is None:
        raise UnknownDetector("There is no such detector.")
    return describe(detector, parts.champions.get(name))


async def settled(parts: Parts, name: str) -> None:
    """Let this process see a change that it just made; the change stands whether it does or not."""
    try:
        await parts.watcher.refresh(name)
    except StoreUnavailable:
        return  # the poll brings it when the store is back
