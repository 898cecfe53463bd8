"""From what the store says of a detector to the champion in memory, and out of it again."""

import asyncio
import time
from collections.abc import Callable

from models import AnamnesisError
from service import log
from service.domain.champion import Champion
from service.domain.detector import NAME, Detector
from service.domain.detector_config import configured
from service.problems import Gone, Unknown
from service.scoring.champions import Champions
from service.settings import Settings
from service.signatures import Seal
from service.store.adapters import Stores
from service.store.labels import labelled
from service.swap.artifacts import Artifacts
from service.swap.disk_cache import DiskCache
from service.swap.loader import Loaded, load, prepared
from service.telemetry.metrics import Metrics

_log = log.get(__name__)

_FAILED_SECONDS = 5.0  # until an artifact that did not load is tried again


class Swapper:
    """Loads champions into `champions`, from the store or from this machine's disk."""

    def __init__(
        self, stores: Stores, champions: Champions, settings: Settings, metrics: Metrics
    ) -> None:
        self.seal = Seal.of(settings)
        self._artifacts = Artifacts(settings.artifact_max_bytes)
        self.disk = DiskCache(settings.cache_dir, self._artifacts)
        self._stores, self._champions, self._metrics = stores, champions, metrics
        self._failed: dict[tuple[str, str, int, str | None], float] = {}

    async def restore(self) -> None:
        """Serve what this machine served last, as much of it as there is room for."""
        copies = self.disk.restore()
        while (champion := await asyncio.to_thread(next, copies, None)) is not None:
            if self._champions.install(champion):
                self._metrics.swapped(champion, None, "disk")
                _log.warning("serving from disk", detector=champion.name, version=champion.number)
            if self._evict():
                break  # the others are loaded on demand

    async def swap(self, detector: Detector, number: int, serving: Champion | None) -> None:
        """Serve version `number`, or log why not and let what serves go on; StoreUnavailable."""
        started = time.perf_counter()
        key = (detector.name, detector.uid, number, detector.champion_sha256)
        if time.monotonic() < self._failed.get(key, 0.0):
            return
        same = serving is not None and serving.number == number
        held = serving if same else self._champions.pinned(detector.name, number)
        # Versions of a store that was restored from a copy get numbers that were given before.
        if held is not None and detector.champion_sha256 in (None, held.sha256):
            loaded = Loaded(held.version, held.trained_at, held.sha256, held.bytes)
        else:
            loaded, same = None, False
        source = "memory"
        try:
            if loaded is None:
                loaded, source = await self._fetched(detector, number)
            version = configured(loaded.version, detector.config)
            said = await labelled(self._stores.labels, detector)
            policy, missing = detector.config.threshold, version.config.missing
            cost = self._artifacts.cost(loaded.sha256, missing)
            ready = await asyncio.to_thread(prepared, version, policy, said, cost)
            self._artifacts.measured(loaded.sha256, missing, ready.inline)
        except (AnamnesisError, Gone, Unknown) as error:
            self._failed[key] = time.monotonic() + _FAILED_SECONDS
            self._champions.refuse(detector)
            self._metrics.artifact_failed(detector.name)
            about = {"detector": detector.name, "version": number, "why": str(error)}
            _log.error("version not loaded, the old one serves on", **about)
            return
        champion = Champion(
            name=detector.name,
            uid=detector.uid,
            number=number,
            generation=detector.generation,
            config_revision=detector.config_revision,
            version=version,
            threshold=ready.threshold,
            trained_at=loaded.trained_at,
            labels=said,
            sha256=loaded.sha256,
            stored=detector.pointer,
            rules=detector.config.rules,
            inline=ready.inline,
            bytes=loaded.size,
        )
        if self._champions.install(champion):
            took = time.perf_counter() - started
            self._failed.pop(key, None)
            self._metrics.swapped(champion, None if same else took, source)
            self._evict()
            _log.info(
                "champion swapped in", detector=detector.name, version=number,
                generation=detector.generation, seconds=round(took, 4),
            )  # fmt: skip
            # Else the copy on disk says just this.
            if loaded.copied != champion.stored or said is not None:
                artifact = loaded.artifact if version is loaded.version else None
                await self.beside(self.disk.keep, champion, artifact)

    async def _fetched(self, detector: Detector, number: int) -> tuple[Loaded, str]:
        """Return a version, from this machine's disk where it is loaded on demand and there."""
        sha256 = detector.champion_sha256
        # A copy has no signature, so only the store's is taken where versions must be signed.
        if self._champions.on_demand and not self.seal.required:
            about = (detector.name, detector.uid, number, sha256)
            found = await asyncio.to_thread(self.disk.version, *about)
            if found is not None:
                return found, "disk"
        return await self.load(detector, number), "store"

    async def from_disk(self, name: str) -> None:
        """Serve the copy on this machine's disk, unless the store told of a later champion."""
        if not self._champions.on_demand or not NAME.fullmatch(name):
            return
        if self._champions.get(name) is not None:
            return
        copy = await asyncio.to_thread(self.disk.find, name)
        held = self._champions.detector(name)
        if copy is None or (held is not None and copy.pointer != held.pointer):
            return
        if self._champions.install(copy):
            self._metrics.swapped(copy, None, "disk")
            self._evict()

    async def load(self, detector: Detector, number: int) -> Loaded:
        """Return a version from the store, verified; raises what `loader.load` does."""
        return await load(self._stores.registry, detector, number, self._artifacts, self.seal)

    def _evict(self) -> bool:
        """Make room for what was loaded; return whether anything had to go."""
        gone = self._champions.evict()
        for name in gone:
            self._metrics.evicted(name)
        self._metrics.holds(len(self._champions.loaded()), self._champions.loaded_bytes)
        return bool(gone)

    async def beside(self, work: Callable[..., None], *arguments: object) -> None:
        """Let the disk work in a thread; what is served does not depend on it."""
        with self._metrics.side_work.part("champion_cache"):
            await asyncio.to_thread(work, *arguments)
