"""Tells open pages which detectors changed. All pages share one poll of the store."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import orjson

from service.domain.api_key import Grant
from service.domain.detector import Detector
from service.pacing import pause
from service.problems import StoreUnavailable, TooManyRequests
from service.store.detectors import Detectors

SECONDS = 2.0  # between two polls, while a page is open
MOST = 128  # most open pages that one process serves with changes
MOST_OF_ONE = 64  # most of them with one API key
_ALIVE = 15.0  # seconds without an event before a comment is sent to keep the connection open
_SHARE = 0.05  # the largest share of the time that polling may take
_AT_ONCE = 500  # detectors that are compared before other requests get their turn


class Changes:
    """Polls the detectors for the open pages. A process has one."""

    def __init__(self, detectors: Detectors) -> None:
        self._detectors = detectors
        self._known: dict[str, int] = {}  # a hash of each detector's state
        self._polls = 0
        self._changed: dict[str, int] = {}  # the last poll that found a change; latest last
        self._next = 0.0
        self._polling = asyncio.Lock()
        self._closed = asyncio.Event()
        self._following: Counter[str] = Counter()

    @property
    def following(self) -> int:
        """The number of open streams."""
        return self._following.total()

    def close(self) -> None:
        """End every stream, because the process stops."""
        self._closed.set()

    async def follow(self, grant: Grant, still_allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events: `change` with the names of changed detectors.

        Only detectors that `grant` covers are named. The stream ends when `still_allowed` returns
        False, as it does once the key is revoked. Raises TooManyRequests before the first
        event if too many pages are open.
        """
        if self.following >= MOST or self._following[grant.id] >= MOST_OF_ONE:
            raise TooManyRequests(
                f"A process serves {MOST} open pages, {MOST_OF_ONE} of them with one API key. "
                "Close some.",
                headers={"Retry-After": "30"},
            )
        self._following[grant.id] += 1
        try:
            await self._poll()
            seen = self._polls
            yield b"retry: 2000\n\n"
            silent = time.monotonic()
            while not await self._stops() and still_allowed():
                await self._poll()
                names = sorted(filter(grant.covers, self._changed_since(seen)))
                seen = self._polls
                if names:
                    yield b"event: change\ndata: %b\n\n" % orjson.dumps({"detectors": names[:100]})
                    silent = time.monotonic()
                elif time.monotonic() - silent > _ALIVE:
                    yield b": still here\n\n"
                    silent = time.monotonic()
        finally:
            self._following[grant.id] -= 1
            if not self._following[grant.id]:
                del self._following[grant.id]
            if not self._following:
                self._changed.clear()

    async def _stops(self) -> bool:
        """Wait until the next poll is due. Return True at once if the process stops."""
        try:
            await asyncio.wait_for(self._closed.wait(), SECONDS)
        except TimeoutError:
            return False
        return True

    def _changed_since(self, seen: int) -> list[str]:
        """Return the detectors that changed after the poll with the number `seen`."""
        names = []
        for name, poll in reversed(self._changed.items()):
            if poll <= seen:
                break
            names.append(name)
        return names

    async def _poll(self) -> None:
        """Read the detectors and note those that changed. All pages share one read of the store."""
        async with self._polling:
            start = time.monotonic()
            if start < self._next:
                return
            try:
                detectors = await self._detectors.list()
            except StoreUnavailable:
                pass  # keep the states of the last poll
            else:
                await self._compare(detectors)
            now = time.monotonic()
            self._next = now + pause(now - start, _SHARE, SECONDS / 2)

    async def _compare(self, detectors: Sequence[Detector]) -> None:
        known: dict[str, int] = {}
        changed: list[str] = []
        for number, detector in enumerate(detectors):
            state = known[detector.name] = hash(repr(detector))
            if self._known.get(detector.name) != state:
                changed.append(detector.name)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        changed += self._known.keys() - known.keys()  # the deleted ones
        self._known = known
        self._polls += 1
        for name in changed:
            self._changed.pop(name, None)  # to the end
            self._changed[name] = self._polls
