"""Tells open pages which detectors changed. All pages share one poll of the store."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import orjson

from service.pacing import pause
from service.problems import StoreUnavailable, TooManyRequests
from service.store.detectors import Detectors

SECONDS = 2.0  # between two polls, while a page is open
MOST = 64  # most open pages that one process serves with changes
_ALIVE = 15.0  # seconds without an event before a comment is sent to keep the connection open
_SHARE = 0.05  # the largest share of the time that polling may take


class Changes:
    """Polls the detectors for the open pages. A process has one."""

    def __init__(self, detectors: Detectors) -> None:
        self._detectors = detectors
        self._known: dict[str, int] = {}
        self._next = 0.0
        self._polling = asyncio.Lock()
        self._closed = asyncio.Event()
        self.following = 0  # open streams

    def close(self) -> None:
        """End every stream, because the process stops."""
        self._closed.set()

    async def follow(
        self, covers: Callable[[str], bool], still_allowed: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events: `change` with the names of changed detectors.

        Only detectors that `covers` allows are named. The stream ends when `still_allowed` returns
        False, as it does once the key is revoked. Raises TooManyRequests before the first
        event if too many pages are open.
        """
        if self.following >= MOST:
            raise TooManyRequests(
                f"{MOST} open pages follow this process already. Close some.",
                headers={"Retry-After": "30"},
            )
        self.following += 1
        try:
            before = await self._poll()
            yield b"retry: 2000\n\n"
            silent = time.monotonic()
            while not await self._stops() and still_allowed():
                now = await self._poll()
                names = sorted(
                    name
                    for name in before.keys() | now.keys()
                    if before.get(name) != now.get(name) and covers(name)
                )
                before = now
                if names:
                    yield b"event: change\ndata: %b\n\n" % orjson.dumps({"detectors": names[:100]})
                    silent = time.monotonic()
                elif time.monotonic() - silent > _ALIVE:
                    yield b": still here\n\n"
                    silent = time.monotonic()
        finally:
            self.following -= 1

    async def _stops(self) -> bool:
        """Wait until the next poll is due. Return True at once if the process stops."""
        try:
            await asyncio.wait_for(self._closed.wait(), SECONDS)
        except TimeoutError:
            return False
        return True

    async def _poll(self) -> dict[str, int]:
        """Return a hash of each detector's state. All pages share one read of the store."""
        async with self._polling:
            start = time.monotonic()
            if start >= self._next:
                try:
                    detectors = await self._detectors.list()
                except StoreUnavailable:
                    detectors = None  # keep the states of the last poll
                if detectors is not None:
                    self._known = {detector.name: hash(repr(detector)) for detector in detectors}
                now = time.monotonic()
                self._next = now + pause(now - start, _SHARE, SECONDS / 2)
        return self._known
