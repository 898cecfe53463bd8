"""The hot swap: keeps the champions in memory equal to those in the store.

A notification reports a change at once. A poll finds changes whose notification was lost. A version
is loaded, verified and warmed up in a thread. Then one assignment swaps it in. A version that
cannot be loaded, or is older than the one that serves, is not swapped in.
"""

import asyncio
import time
from collections.abc import Collection, Mapping

from models import AnamnesisError
from service import log
from service.domain.champion import Champion
from service.domain.detector import Detector, Pointer, older
from service.domain.swap_outcome import SwapOutcome
from service.problems import Gone, NoVersion, StoreUnavailable
from service.scoring.champions import Champions
from service.settings import Settings
from service.store.adapters import Stores
from service.store.connection import WeakStore, cause, notifications
from service.swap.loader import prepared
from service.swap.pins import Pins
from service.swap.store_health import StoreHealth
from service.swap.swapper import Swapper
from service.telemetry.metrics import Metrics

_log = log.get(__name__)

_UNKNOWN_SECONDS = 1.0  # seconds before the store is asked again for a name that it did not know
_UNKNOWN_NAMES = 10_000  # most such names that are remembered
# With more detectors than this, whole states are read only at every fifth poll: 1,000 take 0.1 s.
_READ_FULLY, _READ_RARELY = 200, 5
# States that are read at every poll, in turns, if champions are loaded on demand.
_READ_AT_ONCE = 200
# Between two repairs of the due index, while no worker's janitor repairs it.
_REPAIR_SECONDS = 60.0


class Watcher:
    """Watches the store for one process and keeps its `champions` up to date."""

    def __init__(
        self, stores: Stores, champions: Champions, settings: Settings, metrics: Metrics
    ) -> None:
        self.stores = stores
        self.champions = champions
        self.health = StoreHealth(settings)
        self._swapper = Swapper(stores, champions, settings, metrics.side_work)
        self.signer = self._swapper.signer
        self._settings, self._metrics = settings, metrics
        self._pruned = False
        self._turn = 0
        self._next_repair = 0.0
        self._unknown: dict[str, float] = {}
        self._pins = Pins(champions, stores.registry)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll_forever())
            tasks.create_task(self._listen_forever())

    async def _poll_forever(self) -> None:
        while True:
            started = time.monotonic()
            # A process that stops watching serves stale models. The code that found a silent or
            # weak store has logged it.
            with log.tolerated(_log, "polling the store failed", StoreUnavailable, WeakStore):
                await self.poll()
            spent = time.monotonic() - started
            await asyncio.sleep(max(0.05, self._settings.poll_seconds - spent))

    async def _listen_forever(self) -> None:
        while True:
            # A process that stops listening swaps late. The poll reports that the store is away.
            failed = "listening to the store's notifications failed"
            with log.tolerated(_log, failed):
                try:
                    async for name in notifications(self.stores.listening):
                        await self.follow(name)
                except StoreUnavailable as error:
                    self.health.deaf(error)
            await asyncio.sleep(self._settings.poll_seconds)

    async def restore(self) -> None:
        """Load the champions on this machine's disk, because the store is away at the start."""
        async for outcome in self._swapper.restore():
            self._record(outcome)
        loaded = len(self.champions.loaded())
        _log.warning("store away at the start; champions were loaded from disk", loaded=loaded)

    # Polling the store

    async def poll(self) -> None:
        """Read every detector once. Raises StoreUnavailable, or WeakStore at the first poll."""
        try:
            await self.health.check(self.stores.redis)
            names = await self.stores.detectors.names()
            in_memory = {detector.name for detector in self.champions.detectors()}
            in_memory |= {champion.name for champion in self.champions.loaded()}
            # The others are read from the store before they are loaded.
            watched = names | in_memory
            if self.champions.on_demand:
                watched = {champion.name for champion in self.champions.loaded()}
            pointers = await self.stores.detectors.poll(watched)
            ages = await self.stores.leases.workers()
            self.champions.templates = await self.stores.templates.names()
            self.health.work = await self.stores.due.work()
        except StoreUnavailable as error:
            self.health.away(cause(error))
            raise
        if self.health.note_answer():
            self._unknown.clear()
        self.health.worker_heartbeat = time.time() - min(ages.values()) if ages else None
        gone = (in_memory & watched) - pointers.keys() | (in_memory - names)
        for name in self._changed_names(pointers) | gone:
            await self.follow(name)
        await self._read_states(names)
        await self._pins.check()
        if not self._pruned:
            self._pruned = True
            self._metrics.keep_only(names | in_memory)
            await self._swapper.prune(names)

    async def follow(self, name: str) -> None:
        """Refresh one detector. An error is only logged, so that the others are refreshed too."""
        # While the store is away, the next poll refreshes it.
        failed = "reading a changed detector failed"
        with log.tolerated(_log, failed, StoreUnavailable, detector=name):
            await self.refresh(name)

    def _changed_names(self, pointers: Mapping[str, Pointer]) -> set[str]:
        return {name for name, pointer in pointers.items() if self._has_changed(name, pointer)}

    def _has_changed(self, name: str, pointer: Pointer) -> bool:
        detector = self.champions.detector(name)
        if detector is None:
            return not self.champions.on_demand  # `_read_states` reads all of them
        # A champion that lags could not be loaded: try again.
        return detector.pointer != pointer or self.champions.lags(name, pointer)

    async def _read_states(self, names: Collection[str]) -> None:
        """Read the detectors' states again, for metrics and for the 409 before a first version."""
        self._turn += 1
        if self.champions.on_demand and len(names) > _READ_AT_ONCE:
            turns = -(-len(names) // _READ_AT_ONCE)
            names = sorted(names)[self._turn % turns :: turns]
        elif len(names) > _READ_FULLY and self._turn % _READ_RARELY:
            return
        for detector in await self.stores.detectors.some(names):
            self._remember_state(detector)
        # An autoscaler that reads `GET /v1/work` would start no worker for detectors that the
        # index lacks.
        if self.health.lacks_worker and time.monotonic() >= self._next_repair:
            self._next_repair = time.monotonic() + _REPAIR_SECONDS
            await self.stores.due.repair(self.champions.detectors())

    def _remember_state(self, detector: Detector) -> None:
        """Remember a state, unless a newer state of the same detector is known already."""
        in_memory = self.champions.detector(detector.name)
        if in_memory is not None and in_memory.uid != detector.uid:
            return  # `refresh` decides between two detectors of one name
        if in_memory is None or not older(detector.pointer, in_memory.pointer):
            self.champions.note(detector)

    async def refresh(self, name: str, *, demanded: bool = False) -> Detector | None:
        """Make memory match the store's present state of `name`, and return it.

        If champions are loaded on demand, one that is not loaded is loaded only if `demanded`.
        Raises StoreUnavailable.
        """
        outcome = await self._swapper.refresh(name, demanded=demanded)
        self._record(outcome)
        if outcome.detector is not None:
            self._unknown.pop(name, None)
        return outcome.detector

    def _record(self, outcome: SwapOutcome) -> None:
        """Count and log a change in this process."""
        self._metrics.swap(outcome)
        name, served = outcome.name, outcome.champion
        if outcome.change == "none":
            return
        self._metrics.set_loaded(len(self.champions.loaded()), self.champions.loaded_bytes)
        if outcome.change == "regressed":
            _log.error("the store holds an older state", detector=name, why=outcome.why)
        elif outcome.change == "refused":
            version = outcome.detector and outcome.detector.champion
            about = {"detector": name, "version": version, "why": outcome.why}
            _log.error("loading a version failed; the old one goes on serving", **about)
        elif served is not None:
            _log.info(
                "champion swapped in", detector=name, version=served.number,
                generation=served.generation, source=outcome.source,
                seconds=None if outcome.seconds is None else round(outcome.seconds, 4),
            )  # fmt: skip

    async def ensure_known(self, name: str) -> None:
        """Make sure that this process knows the detector of a request, if the detector exists.

        The store is asked for an unknown detector, or for its first version. If champions are
        loaded on demand, the champion is loaded, from the disk if the store is away. Raises
        StoreUnavailable.
        """
        in_memory = self.champions.detector(name)
        if in_memory is not None and not self.health.redis_up:
            return await self._from_disk(name)
        try:
            if in_memory is None:
                await self.look_up(name)
            else:
                await self.refresh(name, demanded=True)
        except StoreUnavailable:
            await self._from_disk(name)
            if in_memory is None and self.champions.get(name) is None:
                raise
        return None

    async def _from_disk(self, name: str) -> None:
        self._record(await self._swapper.from_disk(name))

    async def pinned(self, name: str, number: int) -> Champion:
        """Return version `number` for a request that pins it. Load it if it is not loaded.

        Raises Unknown, Gone if it was pruned, and StoreUnavailable.
        """
        champion = self.champions.pinned(name, number)
        detector = self.champions.detector(name)
        if champion is None:
            detector = detector or await self.look_up(name)
            if detector is None:
                raise NoVersion("There is no version yet.")
            try:
                loaded = (await self._swapper.load(detector, number)).loaded
                options = await asyncio.to_thread(prepared, loaded.version, detector.config)
            except AnamnesisError as error:
                self._metrics.artifact_failed(name)
                _log.error("loading a pinned version failed", detector=name, version=number)
                raise Gone("The version's artifact is damaged.") from error
            champion = self.champions.pin(detector, number, loaded, options.inline)
        if self.health.redis_up:
            await self._pins.record(name, number)
        return champion

    async def look_up(self, name: str) -> Detector | None:
        """Return a detector that this process may not know yet, None if there is none.

        The store is asked at most once a second for a missing name, and not at all while it is
        away.
        """
        in_memory = self.champions.detector(name)
        now = time.monotonic()
        if in_memory is not None or now < self._unknown.get(name, 0.0):
            return in_memory
        try:
            known = await self.refresh(name, demanded=True)
        except StoreUnavailable as error:
            if self.health.redis_up:
                self.health.away(cause(error))
            raise
        if known is None:
            if len(self._unknown) >= _UNKNOWN_NAMES:
                self._unknown.clear()
            self._unknown[name] = now + _UNKNOWN_SECONDS
        return known
