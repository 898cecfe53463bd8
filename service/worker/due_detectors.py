"""Finds the detectors that are due for a retraining, without reading all of them."""

import asyncio
import time

from service.domain import retraining_due
from service.domain.detector import Detector
from service.pacing import pause
from service.store.adapters import Stores

_LOOK_SHARE = 0.1  # largest share of the time for looking into the due index
_RETRY_SECONDS = 1.0  # before a detector without an outcome is tried again
_WOKEN = 256  # most changed detectors that are checked first at the next look


class DueDetectors:
    """The detectors to retrain: those that changed, and the first entries of the due index.

    `woken` is set when a detector has changed. `tick_seconds` is the least pause between two looks
    into the index.
    """

    def __init__(self, stores: Stores, tick_seconds: float) -> None:
        self._stores = stores
        self._tick_seconds = tick_seconds
        self._changed: set[str] = set()
        self._not_before: dict[str, float] = {}  # when detectors that wait may be tried again
        self._next_look = 0.0
        self.woken = asyncio.Event()

    @property
    def pause(self) -> float:
        """The seconds until the next look into the index."""
        return max(0.0, self._next_look - time.monotonic())

    def changed(self, name: str) -> None:
        """Note that a detector has changed."""
        if len(self._changed) < _WOKEN:
            self._changed.add(name)
        self.woken.set()

    def look_again(self) -> None:
        """Look into the index at the next call: other detectors may have become due."""
        self._next_look = 0.0

    def retry_later(self, name: str) -> None:
        """Leave a detector out for a moment, because its retraining had no outcome."""
        self._not_before[name] = time.monotonic() + _RETRY_SECONDS

    async def most_urgent_first(self) -> list[tuple[Detector, str]]:
        """Return the due detectors, each with the reason.

        The detectors that changed are checked at every call, and from time to time the first
        entries of the index. So a bounded number of detectors is read, however many there are.
        """
        changed, self._changed = self._changed, set()
        self.woken.clear()
        start, due = time.monotonic(), self._stores.due
        self._not_before = {n: at for n, at in self._not_before.items() if at > start}
        waited = dict.fromkeys(changed, 0.0)
        if start >= self._next_look:
            waited |= await due.heads()
            now = time.monotonic()
            self._next_look = now + pause(now - start, _LOOK_SHARE, self._tick_seconds)
        due_now, now = [], time.time()
        for detector in await self._stores.detectors.existing(
            waited.keys() - self._not_before.keys()
        ):
            reason = retraining_due.due(detector, now)
            if reason:
                urgency = retraining_due.urgency(detector, waited.pop(detector.name))
                due_now.append((urgency, detector, reason))
        for name in waited.keys() - self._not_before.keys() - changed:
            await due.correct(name)
        due_now.sort(key=lambda entry: -entry[0])
        return [(detector, reason) for _, detector, reason in due_now]
