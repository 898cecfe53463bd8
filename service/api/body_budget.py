"""Bounds the bytes of all request bodies that one process holds, and of one sender's bodies.

A body for which there is no room is not read. It waits, and is refused after two seconds. Bodies of
up to `FREE_BYTES` are not counted, because a connection buffers that much anyway. So scoring goes
on while a client sends large bodies.
"""

import asyncio
from collections import Counter

from service.problems import Busy

FREE_BYTES = 64 * 1024
FULL = "The bodies of other requests fill the memory for request bodies. Try again later."
_WAIT_SECONDS = 2.0  # a request waits this long for room before it is refused
_SHARE = 0.5  # the share of the budget that one sender may hold


class BodyBudget:
    """The budget of one process: `most` bytes in all. One body of `largest` bytes always fits."""

    def __init__(self, most: int, largest: int) -> None:
        self._most = max(most, largest)
        self._most_of_one = max(int(_SHARE * self._most), largest)
        self._held = 0
        self._held_by: Counter[str] = Counter()
        self._given = asyncio.Event()

    def try_take(self, sender: str, size: int) -> bool:
        """Hold `size` more bytes for the sender and return True, if there is room."""
        if self._held + size > self._most or self._held_by[sender] + size > self._most_of_one:
            return False
        self._held += size
        self._held_by[sender] += size
        return True

    async def take(self, sender: str, size: int) -> None:
        """Hold `size` more bytes for the sender. Raises Busy if there is no room in time."""
        if self.try_take(sender, size):
            return
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while not self.try_take(sender, size):
                    self._given.clear()
                    await self._given.wait()
        except TimeoutError:
            raise Busy(FULL) from None

    def give(self, sender: str, size: int) -> None:
        """Release `size` bytes that were held for the sender."""
        if not size:
            return
        self._held -= size
        self._held_by[sender] -= size
        if not self._held_by[sender]:
            del self._held_by[sender]
        self._given.set()
