"""Versions that requests pin: recorded as in use, and let go once the store has another."""

import contextlib
import time

from service.problems import StoreUnavailable
from service.scoring.champions import Champions
from service.store.registry import Registry

_SECONDS = 60.0  # between two records that a pinned version is in use
_RECORDED = 10_000  # such records remembered


class Pins:
    """Keeps the pinned versions of one process equal to the store's."""

    def __init__(self, champions: Champions, registry: Registry) -> None:
        self._champions, self._registry = champions, registry
        self._recorded: dict[tuple[str, int], float] = {}

    async def record(self, name: str, number: int) -> None:
        """Tell the store now and then to keep the version; a store that is away is ignored."""
        now = time.monotonic()
        if now < self._recorded.get((name, number), 0.0):
            return
        self._recorded[name, number] = now + _SECONDS
        if len(self._recorded) > _RECORDED:
            self._recorded.clear()
        with contextlib.suppress(StoreUnavailable):
            await self._registry.pin(name, number)

    async def check(self) -> None:
        """Unload versions for whose number the store has another artifact.

        A store that was restored from a copy gives numbers again. Raises StoreUnavailable.
        """
        for name, held in self._champions.pins().items():
            digests = await self._registry.digests(name, list(held))
            for number, sha256 in held.items():
                if digests[number] not in (None, sha256):
                    self._champions.unpin(name, number)
