"""Makes the status of a detector from the store's state and from the champion in memory."""

import contextlib
import time

import msgspec

from models.parts.lineage import Lineage
from service import log
from service.api.parts import Parts
from service.domain.champion import Champion
from service.domain.detector import Detector, older
from service.domain.detector_status import (
    BrokenStatus,
    ContextStatus,
    DetectorStatus,
    IncidentCounts,
    MuteStatus,
    RegimeStatus,
)
from service.domain.drift_report import NO_DRIFT, Drift
from service.problems import StoreUnavailable, UnknownDetector
from service.timestamps import rfc3339

_log = log.get(__name__)


def describe(app: Parts, detector: Detector) -> DetectorStatus | BrokenStatus:
    """Return the status of a detector. Champion and generation are those that this process serves.

    If versions are loaded on demand, a champion counts as served before it is loaded; its
    threshold is not known until then. A detector whose status cannot be made gets a BrokenStatus,
    so that a list still shows the others.
    """
    champion, on_demand = app.champions.get(detector.name), app.champions.on_demand
    try:
        return _status(detector, champion, app.watcher.health.no_worker, on_demand=on_demand)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("making a detector's status failed", detector=detector.name)
        why = "Its status cannot be shown. The log of this process says why."
        return BrokenStatus(detector.name, detector.generation, why)


def _status(
    detector: Detector, champion: Champion | None, stale: str | None, *, on_demand: bool
) -> DetectorStatus:
    if champion is not None and champion.uid != detector.uid:
        champion = None
    number, generation = _served(detector, champion, on_demand=on_demand)
    threshold = champion.threshold if champion else None
    lineage = champion.version.lineage if champion else None
    is_current = champion is not None and detector.drift.version == champion.number
    champion_drift = detector.drift if is_current else NO_DRIFT
    rule, chosen = detector.incident_rule, detector.chosen
    return DetectorStatus(
        name=detector.name,
        created_at=detector.created_at,
        config=detector.config.to_dict(),
        config_revision=champion.config_revision if champion else detector.config_revision,
        dimension=detector.config.dimension,
        champion=number,
        generation=generation,
        loaded=champion is not None,
        threshold=threshold.value if threshold else None,
        calibration=threshold.calibration if threshold else None,
        labels=threshold.labels if threshold else None,
        ahead_of_store=champion is not None and older(detector.pointer, champion.pointer),
        last_version=detector.last_version,
        buffered=detector.buffered,
        quarantined=detector.quarantined,
        parked=detector.parked,
        thinned=detector.thinned,
        learned=detector.learned,
        needed=detector.needed,
        retraining=detector.retraining,
        last_retraining=detector.last_retraining,
        retrains=detector.retrains,
        drift=drift(detector, stale),
        incidents=IncidentCounts(detector.incidents.open, detector.incidents.unfinished),
        incident_calibration=rule.calibration if rule else None,
        incident_rule=rule,
        mute=_mute(detector),
        waiting=detector.waiting,
        regimes=_regimes(lineage, champion_drift) if lineage else (),
        advice=lineage.advice if lineage else None,
        notes=lineage.notes if lineage else (),
        queries=champion_drift.queries or (),
        context=ContextStatus(chosen.context, chosen.why) if chosen else None,
    )


def _served(
    detector: Detector, champion: Champion | None, *, on_demand: bool
) -> tuple[int | None, int]:
    """Return the number and the generation of the champion that this process serves."""
    if champion is not None:
        return champion.number, champion.generation
    return (detector.champion, detector.generation) if on_demand else (None, 0)


def _regimes(lineage: Lineage, drift: Drift) -> tuple[RegimeStatus, ...]:
    """Return for each regime what the champion learned of it, and its share of live traffic."""
    mix = drift.statistics.regimes if drift.statistics else None
    live = {share.regime: share for share in mix.known} if mix else {}
    learned = sum(regime.size for regime in lineage.regimes)
    return tuple(
        RegimeStatus(
            regime=about.number,
            size=about.size,
            learned=about.size / learned,
            seen=about.seen,
            live=share.live if (share := live.get(about.number)) else None,
            state=share.state if share else "unknown",
            forgetting=about.forgetting,
            score_change=about.score_change,
            typical=about.typical,
        )
        for about in lineage.regimes
    )


def drift(detector: Detector, stale: str | None) -> Drift:
    """Return the drift state. `stale` says why it was not computed lately, None if it was."""
    return msgspec.structs.replace(detector.drift, stale=stale)


def _mute(detector: Detector) -> MuteStatus | None:
    mute = detector.mute
    if mute is None or not detector.muted(time.time()):
        return None
    return MuteStatus(rfc3339(mute.until), mute.why, mute.who)


async def existing(app: Parts, name: str) -> Detector:
    """Return the detector as the store has it now. Raises UnknownDetector or StoreUnavailable."""
    detector = await app.stores.detectors.get(name)
    if detector is None:
        raise UnknownDetector()
    return detector


async def current(app: Parts, name: str) -> DetectorStatus | BrokenStatus:
    """Return the status after this process has read the detector from the store again."""
    detector = await app.watcher.refresh(name)
    if detector is None:
        raise UnknownDetector()
    return describe(app, detector)


async def show_own_change(app: Parts, name: str) -> None:
    """Read the detector again, so that this process sees its own change at once.

    Errors of the store are ignored: the change has already been written, and a later poll reads it.
    """
    with contextlib.suppress(StoreUnavailable):
        await app.watcher.refresh(name)


async def show_own_labels(app: Parts, detector: Detector) -> None:
    """Read the detector again after a change of its labels, if labels set its threshold."""
    if "labels" in detector.config.threshold:
        await show_own_change(app, detector.name)
