"""The janitor deletes data that is no longer needed, in small steps, beside the learning.

Any number of workers may do this at the same time, since every step is atomic in the store.
"""

import math
import time

from service import log
from service.domain.admission import NOVEL
from service.domain.detector import Detector
from service.domain.incident import arrival
from service.problems import Conflict, StoreUnavailable, Unknown
from service.settings import Settings
from service.store.adapters import Stores
from service.store.connection import store_time
from service.timestamps import unix_seconds

_log = log.get(__name__)

# Between two rounds; learned data that shall not be kept is deleted within two rounds.
SECONDS = 1.0
_PRUNE_SECONDS = 600.0  # between two prunings without a new version, since pins expire
_RELEASE_SECONDS = 5.0  # between two checks for novel rows to release automatically
# A rewrite is due after this share of the longest allowed time; the rest is for the rewrite itself.
_REWRITE_SHARE = 0.9


class Janitor:
    """Erases learned vectors, prunes artifacts, completes decisions, repairs the due index."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._rewrite_seconds = settings.rewrite_seconds * _REWRITE_SHARE
        self._kept_bytes = settings.buffer_max_bytes
        self._stores = stores
        # The state of each detector when it was last pruned, and that time.
        self._pruned: dict[str, tuple[tuple[str, int, int], float]] = {}
        self._released: dict[str, float] = {}  # when novel rows were last checked, monotonic

    async def tick(self) -> None:
        """Clean up every detector once. Raises StoreUnavailable."""
        detectors = await self._stores.detectors.list()
        await self._stores.due.repair(detectors)
        for detector in detectors:
            try:
                await self._clean_up(detector)
            except StoreUnavailable:
                raise
            except (Unknown, Conflict):
                pass  # at the same time the entry was deleted, or a person decided on it
            except Exception:  # noqa: BLE001 - an error of one detector must not stop the others
                _log.exception("deleting old data of a detector failed", detector=detector.name)
        known = {detector.name for detector in detectors}
        self._pruned = {name: seen for name, seen in self._pruned.items() if name in known}
        await self._rewrite()

    async def _rewrite(self) -> None:
        """Log how a rewrite of the append-only file ended, and start one if one is due."""
        erasure = self._stores.erasure
        ended = await erasure.rewrite_result()
        if ended:
            _log.info("the append-only file was rewritten")
        elif ended is False:
            _log.error(
                "deleted vectors are still in the append-only file; the store's log says why"
            )
        if await erasure.rewrite_due(self._rewrite_seconds) and await erasure.rewrite():
            _log.info("the append-only file is being rewritten")

    async def _clean_up(self, detector: Detector) -> None:
        if detector.kept_bytes:
            seconds = detector.config.keep_learned_seconds
            while await self._stores.erasure.erase(detector.name, seconds, self._kept_bytes):
                pass
        if detector.parked:
            await self._stores.quarantine.resume(detector.name)
        if detector.quarantined and detector.config.admission == "hold_novel":
            await self._release_novel(detector)
        seen = (detector.uid, detector.generation, detector.last_version)
        before, at = self._pruned.get(detector.name, (None, 0.0))
        if before != seen or time.monotonic() - at >= _PRUNE_SECONDS:
            await self._stores.registry.prune(detector.name)
            self._pruned[detector.name] = (seen, time.monotonic())

    async def _release_novel(self, detector: Detector) -> None:
        """Release novel rows that have waited as long as the config says.

        Rows of a fault are not released. A fault is an incident that a person confirmed.
        """
        name, wait = detector.name, detector.config.release_after_seconds
        last = self._released.get(name, -math.inf)
        if wait is None or time.monotonic() - last < _RELEASE_SECONDS:
            return
        self._released[name] = time.monotonic()
        now = await store_time(self._stores.redis)  # the store dates the rows
        novel = [
            (entry.id, at)
            for entry in await self._stores.quarantine.list(name)
            if entry.kind == "rows"
            and entry.reason == NOVEL
            and (at := unix_seconds(entry.parked_at) or now) <= now - wait
        ]
        if not novel:
            return
        listed = await self._stores.incidents.all(name)
        faults = [
            incident.incident
            for incident in listed
            if incident.decision and incident.decision.verdict == "confirmed"
        ]
        rows = await self._stores.incidents.rows(name, [fault.id for fault in faults])
        spans = [arrival(fault, rows[fault.id]) for fault in faults]
        for entry, at in novel:
            if not any(since <= at <= until for since, until in spans):
                await self._stores.quarantine.decide(
                    name, entry, "release", who="worker", why=f"novel for {wait:g} s"
                )
