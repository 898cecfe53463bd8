"""The hot swap: keeps the champions in memory equal to those in the store.

A notification reports a change at once. A poll finds changes whose notification was lost. A version
is loaded, verified and warmed up in a thread. Then one assignment swaps it in. A version that
cannot be loaded is not swapped in. A state of the detector that is older than the one in memory is
not followed.
"""

import asyncio
import time
from zlib import crc32

from models import AnamnesisError
from service import log
from service.domain.champion import Champion
from service.domain.detector import Detector, older
from service.domain.swap_outcome import SwapOutcome
from service.problems import Gone, StoreUnavailable, UnknownDetector
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
# With more detectors than this, a poll reads some of them. Reading 1,000 takes 0.1 s.
_READ_AT_ONCE = 200
_TURNS = 4  # polls in which each of many detectors is read once
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
            # A process that stops watching serves stale models, so no error ends the loop. A silent
            # or weak store was logged where it was found.
            with log.tolerated(
                _log, "polling the store failed; it is tried again", StoreUnavailable, WeakStore
            ):
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
                    self.health.note_no_notifications(error)
            await asyncio.sleep(self._settings.poll_seconds)

    async def restore(self) -> None:
        """Load the champions from this machine's disk, because the store is away at the start."""
        async for outcome in self._swapper.restore():
            self._record(outcome)
        loaded = len(self.champions.loaded())
        _log.warning("store away at the start; champions were loaded from disk", loaded=loaded)

    # Polling the store

    async def poll(self) -> None:
        """Read the detectors whose turn it is, and follow their changes.

        Raises StoreUnavailable, or WeakStore at the first poll.
        """
        try:
            await self.health.check(self.stores.redis)
            names = await self.stores.detectors.names()
            in_memory = {detector.name for detector in self.champions.detectors()}
            loaded = {champion.name for champion in self.champions.loaded()}
            in_memory |= loaded
            to_read = self._to_read(names | in_memory, loaded)
            states = {state.name: state for state in await self.stores.detectors.existing(to_read)}
            ages = await self.stores.leases.workers()
            self.champions.templates = await self.stores.templates.names()
            self.health.work = await self.stores.due.work()
            await self.stores.clock.now()  # logs that this machine's clock is wrong
        except StoreUnavailable as error:
            self.health.away(cause(error))
            raise
        if self.health.note_answer():
            self._unknown.clear()
        self.health.worker_heartbeat = time.time() - min(ages.values()) if ages else None
        deleted = (in_memory & to_read) - states.keys() | (in_memory - names)
        for name in {name for name, state in states.items() if self._changed(state)} | deleted:
            await self.follow(name)
        for state in states.values():
            self._remember_state(state)
        await self._repair()
        await self._pins.check()
        if not self._pruned:
            self._pruned = True
            self._metrics.keep_only(names | in_memory)
            await self._swapper.prune(names)

    def _to_read(self, names: set[str], loaded: set[str]) -> set[str]:
        """Return the detectors that this poll reads.

        It reads all if they are few, or if the store did not answer before. Of many, each is read
        at every fourth poll. If champions are loaded on demand, those that are not loaded are read
        two hundred at a poll.
        """
        if len(names) <= _READ_AT_ONCE or not self.health.redis_up:
            return names
        self._turn += 1
        watched = loaded if self.champions.on_demand else names
        others = names - watched
        return self._names_in_turn(watched, _TURNS) | self._names_in_turn(
            others, -(-len(others) // _READ_AT_ONCE)
        )

    def _names_in_turn(self, names: set[str], turns: int) -> set[str]:
        """Return the names whose turn it is, if each is due once in `turns` polls."""
        return {name for name in names if (crc32(name.encode()) - self._turn) % turns == 0}

    async def follow(self, name: str) -> None:
        """Refresh one detector. An error is only logged, so that the others are refreshed too."""
        # If the store is away, nothing is logged: a later poll refreshes the detector.
        failed = "reading a changed detector failed"
        with log.tolerated(_log, failed, StoreUnavailable, detector=name):
            await self.refresh(name)

    def _changed(self, state: Detector) -> bool:
        """Whether memory differs from a state that was read."""
        detector = self.champions.detector(state.name)
        if detector is None:
            return not self.champions.on_demand  # else remembering the state is enough
        # A champion that lags could not be loaded: try again.
        return detector.pointer != state.pointer or self.champions.lags(state.name, state.pointer)

    async def _repair(self) -> None:
        """Repair the due index while no worker does.

        An autoscaler that reads `GET /v1/work` would start no worker for detectors that the index
        lacks.
        """
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
            _log.error(
                "the store holds an older state, or none; the champion in memory goes on serving",
                detector=name,
                why=outcome.why,
            )
        elif outcome.change == "refused":
            version = outcome.detector and outcome.detector.champion
            about = {"detector": name, "version": version, "why": outcome.why}
            _log.error("loading a version failed; the old one goes on serving", **about)
        elif served is not None:
            _log.info(
                "champion swapped in", detector=name, version=served.number,
                generation=served.generation, source=outcome.loaded_from,
                seconds=None if outcome.seconds is None else round(outcome.seconds, 4),
            )  # fmt: skip

    async def ensure_known(self, name: str) -> None:
        """Make sure that this process knows the detector of a request, if the detector exists.

        The store is asked for a detector that is unknown or has no version here. If champions are
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

        Raises UnknownDetector, Unknown, Gone if it was pruned or is damaged, and StoreUnavailable.
        """
        champion = self.champions.pinned(name, number)
        detector = self.champions.detector(name)
        if champion is None:
            detector = detector or await self.look_up(name)
            if detector is None:
                raise UnknownDetector()
            try:
                loaded = (await self._swapper.load(detector, number)).loaded
                options = await asyncio.to_thread(prepared, loaded.version, detector.config)
            except AnamnesisError as error:
                self._metrics.artifact_failed(name)
                _log.error("loading a pinned version failed", detector=name, version=number)
                raise Gone("The version's artifact is damaged. Use another version.") from error
            champion = self.champions.pin(detector, number, loaded, options.inline)
        if self.health.redis_up:
            await self._pins.record(name, number)
        return champion

    async def look_up(self, name: str) -> Detector | None:
        """Return the detector `name`, also if it is new to this process, or None if none exists.

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
