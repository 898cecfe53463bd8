"""Versions that requests pin: records their use, and unloads those that the store replaced."""

import contextlib
import time

from service.problems import StoreUnavailable
from service.scoring.champions import Champions
from service.store.registry import Registry

_SECONDS = 60.0  # between two records that a pinned version is in use
_RECORDED = 10_000  # most such records that are remembered


class Pins:
    """Keeps the pinned versions in memory equal to those in the store."""

    def __init__(self, champions: Champions, registry: Registry) -> None:
        self._champions, self._registry = champions, registry
        self._recorded: dict[tuple[str, int], float] = {}

    async def record(self, name: str, number: int) -> None:
        """Tell the store from time to time that the version is in use.

        Errors of the store are ignored.
        """
        now = time.monotonic()
        if now < self._recorded.get((name, number), 0.0):
            return
        self._recorded[name, number] = now + _SECONDS
        if len(self._recorded) > _RECORDED:
            self._recorded.clear()
        with contextlib.suppress(StoreUnavailable):
            await self._registry.pin(name, number)

    async def check(self) -> None:
        """Unload versions if the store has another artifact under their number.

        This happens after the store was restored from a backup, since it then gives the same
        numbers again. Raises StoreUnavailable.
        """
        for name, pin in self._champions.pins().items():
            digests = await self._registry.digests(name, list(pin))
            for number, sha256 in pin.items():
                if digests[number] not in (None, sha256):
                    self._champions.unpin(name, number)
