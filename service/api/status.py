"""What a detector's status says of its regimes: what is known, what came, what to send."""

import time
from typing import Any

from models.drift.finding import RegimeShare
from models.parts.lineage import KnownRegime
from service import log
from service.api.context import Parts
from service.domain.champion import Champion
from service.domain.detector import Detector, older
from service.domain.drift_report import NO_DRIFT
from service.problems import StoreUnavailable, UnknownDetector
from service.timestamps import rfc3339


def of_regimes(detector: Detector, champion: Champion | None) -> dict[str, Any]:
    """Return the fields `regimes`, `advice`, `notes` and `queries` of the status."""
    if champion is None:
        return {"regimes": [], "advice": None, "notes": [], "queries": []}
    drift = detector.drift if detector.drift.version == champion.number else NO_DRIFT
    mix = drift.statistics.regimes if drift.statistics else None
    live = {one.regime: one for one in mix.known} if mix else {}
    lineage = champion.version.lineage
    learned = sum(about.size for about in lineage.regimes)
    return {
        "regimes": [_told(about, live.get(about.number), learned) for about in lineage.regimes],
        "advice": lineage.advice,
        "notes": lineage.notes,
        "queries": drift.queries or (),
    }


def _told(about: KnownRegime, live: RegimeShare | None, learned: int) -> dict[str, Any]:
    return {
        "regime": about.number,
        "size": about.size,
        "learned": about.size / learned,
        "seen": about.seen,
        "live": live.live if live else None,
        "state": live.state if live else "unknown",
        "forgetting": about.forgetting,
        "score_change": about.score_change,
        "typical": about.typical,
    }


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
        "dimension": detector.config.dimension,
        "champion": champion.number if champion else None,
        "generation": champion.generation if champion else 0,
        "threshold": champion.threshold.value if champion else None,
        "calibration": champion.threshold.calibration if champion else None,
        "labels": champion.threshold.labels if champion else None,
        "ahead_of_store": champion is not None and older(detector.pointer, champion.pointer),
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
        "incidents": {"open": detector.incidents.open, "unfinished": detector.incidents.unfinished},
        "incident_calibration": (detector.incident_rule or {}).get("calibration"),
        "incident_rule": detector.incident_rule,
        "mute": _mute(detector),
        "waiting": _waiting(detector),
        **of_regimes(detector, champion),
    }


def _mute(detector: Detector) -> dict[str, Any] | None:
    mute = detector.mute
    if mute is None or not detector.muted(time.time()):
        return None
    return {"until": rfc3339(mute.until), "why": mute.why, "who": mute.who}


def _waiting(detector: Detector) -> str | None:
    """Return what waits for a person in quarantine, in words."""
    if not detector.quarantined:
        return None
    rows = "row waits" if detector.quarantined == 1 else "rows wait"
    return f"{detector.quarantined} {rows} for a person"


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
