"""Loads and unloads champions in memory, so that they match the detectors' state in the store."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import NamedTuple

from models import AnamnesisError
from service.domain.champion import Champion, LoadedVersion, ServingOptions
from service.domain.detector import NAME, Detector, older
from service.domain.detector_config import configured
from service.domain.swap_outcome import LoadedFrom, SwapOutcome
from service.problems import Gone, Unknown
from service.scoring.champions import Champions
from service.settings import Settings
from service.signatures import Signer
from service.store.adapters import Stores
from service.store.labels import labels_for_threshold
from service.swap.artifacts import Artifacts
from service.swap.disk_cache import DiskCache
from service.swap.loader import FetchedVersion, load, prepared
from service.telemetry.side_work import SideWork

_FAILED_SECONDS = 5.0  # before an artifact that did not load is tried again


class _Ready(NamedTuple):
    """A version with everything that it needs to serve, and the place it came from."""

    fetched: FetchedVersion
    loaded: LoadedVersion
    options: ServingOptions
    loaded_from: LoadedFrom


class Swapper:
    """Makes `champions` match the store, or this machine's disk if the store is away.

    Every change is returned as a SwapOutcome, which the caller records. Failures of the disk go to
    `side_work`.
    """

    def __init__(
        self, stores: Stores, champions: Champions, settings: Settings, side_work: SideWork
    ) -> None:
        self.signer = Signer.of(settings)
        self._artifacts = Artifacts(settings.artifact_max_bytes)
        self._disk = DiskCache(settings.cache_dir, self._artifacts, self.signer)
        self._stores, self._champions, self._side_work = stores, champions, side_work
        self._failed: dict[tuple[str, str, int, str | None], float] = {}
        self._regressed: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._read_at: dict[str, float] = {}  # when the latest finished read of a detector began

    async def restore(self) -> AsyncIterator[SwapOutcome]:
        """Load the champions on this machine's disk, as many as there is room for."""
        copies = self._disk.restore()
        while (champion := await asyncio.to_thread(next, copies, None)) is not None:
            outcome = self._install(champion, "disk")
            yield outcome
            if outcome.evicted:
                break  # the others are loaded on demand

    async def refresh(self, name: str, *, demanded: bool = False) -> SwapOutcome:
        """Make memory match the store's present state of `name`. Raises StoreUnavailable.

        If champions are loaded on demand, one that is not loaded is loaded only if `demanded`.
        Demands that wait for each other share a read of the store.
        """
        lock = self._locks.setdefault(name, asyncio.Lock())
        called = time.monotonic()
        try:
            async with lock:
                in_memory = self._champions.detector(name)
                loaded = self._champions.get(name) is not None
                read = self._read_at.get(name, -math.inf) >= called
                if demanded and in_memory is not None and (loaded or read):
                    return SwapOutcome(name, detector=in_memory)
                began = time.monotonic()
                outcome = await self._refresh(name, demanded=demanded)
                self._read_at[name] = began
                return outcome
        finally:
            if self._champions.detector(name) is None and not lock.locked():
                self._locks.pop(name, None)
                self._read_at.pop(name, None)

    async def _refresh(self, name: str, *, demanded: bool) -> SwapOutcome:
        detector = await self._stores.detectors.get(name)
        in_memory, serving = self._champions.detector(name), self._champions.get(name)
        known = in_memory or serving
        if detector is None:
            if known is None:
                return SwapOutcome(name)
            return await self._unload_missing(name, known.uid)
        if known is not None and known.uid != detector.uid:
            self._champions.forget(name)  # the name was given to another detector
            serving = None
        if serving is not None and older(detector.pointer, serving.pointer):
            outcome = self._regressed_outcome(name, "the store holds an older state")
            return replace(outcome, detector=detector)
        self._regressed.discard(name)
        self._champions.note(detector)
        if self._champions.lags(name, detector.pointer, demanded=demanded):
            assert detector.champion is not None
            return await self._swap(detector, detector.champion, serving)
        if detector.champion is None and serving is not None:
            # The champion was revoked, and no clean version is left.
            self._champions.unload(name)
            await self._disk_work(self._disk.forget, name)
            return SwapOutcome(name, "unloaded", detector)
        return SwapOutcome(name, detector=detector)

    async def _unload_missing(self, name: str, uid: str) -> SwapOutcome:
        """Unload a detector that was deleted. Keep one that the store has lost."""
        if await self._stores.detectors.is_deleted(name, uid):
            self._champions.forget(name)
            self._regressed.discard(name)
            await self._disk_work(self._disk.forget, name)
            return SwapOutcome(name, "deleted")
        if self._champions.get(name) is not None:
            return self._regressed_outcome(name, "the store lost the detector")
        self._champions.forget(name)
        return SwapOutcome(name)

    def _regressed_outcome(self, name: str, why: str) -> SwapOutcome:
        if name in self._regressed:
            return SwapOutcome(name)
        self._regressed.add(name)
        return SwapOutcome(name, "regressed", why=why)

    async def _swap(self, detector: Detector, number: int, serving: Champion | None) -> SwapOutcome:
        """Serve version `number`. Raises StoreUnavailable.

        If it cannot be loaded, the present version goes on serving and the outcome says why.
        """
        started = time.perf_counter()
        key = (detector.name, detector.uid, number, detector.champion_sha256)
        if time.monotonic() < self._failed.get(key, 0.0):
            return SwapOutcome(detector.name, detector=detector)
        try:
            ready = await self._prepare(detector, number, serving)
        except (AnamnesisError, Gone, Unknown, MemoryError) as error:
            self._failed[key] = time.monotonic() + _FAILED_SECONDS
            self._champions.refuse(detector)
            why = str(error) or "the process has too little memory"
            return SwapOutcome(detector.name, "refused", detector, why=why)
        fetched, loaded, options, loaded_from = ready
        champion = Champion.of(detector.name, number, detector.pointer, loaded, options)
        served = loaded_from == "memory" and serving is not None and serving.number == number
        took = None if served else time.perf_counter() - started
        outcome = replace(self._install(champion, loaded_from, took), detector=detector)
        if outcome.champion is not None:
            self._failed.pop(key, None)
            # If neither holds, the copy on disk is already up to date.
            if fetched.copied != champion.stored or options.labels is not None:
                artifact = fetched.artifact
                if artifact is None and self.signer.required:
                    # Encoded again, the version may have other bytes than the signed ones.
                    artifact = await self._stores.registry.artifact(detector.name, number)
                await self._disk_work(self._disk.keep, champion, artifact)
        return outcome

    async def _prepare(self, detector: Detector, number: int, serving: Champion | None) -> _Ready:
        """Return version `number`, ready to serve. Raises the errors of `loader.load`."""
        fetched, loaded_from = await self._fetch(detector, number, serving)
        config, sha256 = detector.config, fetched.loaded.sha256
        loaded = fetched.loaded._replace(version=configured(fetched.loaded.version, config))
        labels = await labels_for_threshold(self._stores.labels, detector)
        missing = loaded.version.config.missing
        cost = self._artifacts.cost(sha256, missing)
        options = await asyncio.to_thread(prepared, loaded.version, config, labels, cost)
        self._artifacts.remember_cost(sha256, missing, options.inline)
        return _Ready(fetched, loaded, options, loaded_from)

    async def _fetch(
        self, detector: Detector, number: int, serving: Champion | None
    ) -> tuple[FetchedVersion, LoadedFrom]:
        """Return a version from memory, or from the disk, or from the store."""
        sha256 = detector.champion_sha256
        same = serving is not None and serving.number == number
        in_memory = serving if same else self._champions.pinned(detector.name, number)
        # A store that was restored from a backup gives the same version numbers again.
        if in_memory is not None and sha256 in (None, in_memory.sha256):
            return FetchedVersion(in_memory.loaded), "memory"
        if self._champions.on_demand:
            about = (detector.name, detector.uid, number, sha256)
            version = await asyncio.to_thread(self._disk.find_version, *about)
            if version is not None:
                return version, "disk"
        return await self.load(detector, number), "store"

    async def from_disk(self, name: str) -> SwapOutcome:
        """Serve the copy on this machine's disk, unless the store has named a later champion."""
        outcome = SwapOutcome(name)
        if not self._champions.on_demand or not NAME.fullmatch(name):
            return outcome
        async with self._locks.setdefault(name, asyncio.Lock()):
            if self._champions.get(name) is not None:
                return outcome
            copy = await asyncio.to_thread(self._disk.find, name)
            in_memory = self._champions.detector(name)
            if copy is None or (in_memory is not None and copy.pointer != in_memory.pointer):
                return outcome
            return self._install(copy, "disk")

    async def load(self, detector: Detector, number: int) -> FetchedVersion:
        """Return a verified version from the store. Raises the errors of `loader.load`."""
        return await load(self._stores.registry, detector, number, self._artifacts, self.signer)

    async def prune(self, names: set[str]) -> None:
        """Delete from the disk old copies of detectors that are not in `names`."""
        await self._disk_work(self._disk.prune, names)

    def _install(
        self, champion: Champion, loaded_from: LoadedFrom, seconds: float | None = None
    ) -> SwapOutcome:
        """Serve `champion` unless a newer one serves. Unload others if it needs their memory."""
        if not self._champions.install(champion):
            return SwapOutcome(champion.name)
        return SwapOutcome(
            champion.name,
            "swapped",
            champion=champion,
            loaded_from=loaded_from,
            seconds=seconds,
            evicted=tuple(self._champions.evict()),
        )

    async def _disk_work(self, work: Callable[..., None], *arguments: object) -> None:
        """Run work on the disk in a thread. A failure does not change what is served."""
        with self._side_work.part("champion_cache"):
            await asyncio.to_thread(work, *arguments)
