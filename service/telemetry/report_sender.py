"""Sends what an API process reports to the store, and keeps it while the store is away."""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any, NamedTuple

from models.arrays import Array
from service import log
from service.domain.champion import Champion
from service.domain.live_summary import LiveSummary
from service.domain.traffic import counts_alone
from service.problems import StoreUnavailable
from service.store.adapters import Stores
from service.telemetry.traffic_collector import ReportWithEvents

_log = log.get(__name__)

UNSENT = 600  # most reports that wait for the store; of older ones only the counts are kept
_WAITING_BYTES = 32 * 2**20  # most bytes of the summaries that wait
_BEAT_SECONDS = 10.0  # between two heartbeats
# Detectors whose reports are sent at once. The store writes to disk once for all that have arrived.
_AT_ONCE = 16


class WaitingSummary(NamedTuple):
    """A summary of a champion's rows that waits for the store.

    `X` are vectors for the shadow stage. The store keeps the latest `most` of them.
    """

    summary: LiveSummary
    X: Array
    most: int

    @property
    def size(self) -> int:
        """Bytes of its arrays."""
        summary = self.summary
        return len(summary.scores) + len(summary.p_values) + len(summary.counts) + self.X.nbytes


class UnsentReport(NamedTuple):
    """A report that the store has not taken yet, under its number."""

    number: int
    content: ReportWithEvents

    @property
    def champion(self) -> tuple[str, int, int]:
        """The detector's uid, the champion's version, and its generation."""
        report = self.content.report
        return report.uid, report.version, report.generation


class Outbox:
    """The reports of one detector that the store has not taken yet, oldest first.

    Their number is bounded: older reports are joined, and only their counts are kept. The oldest
    report is not changed, because the store may have taken it although its answer was lost.
    """

    def __init__(self) -> None:
        self.waiting: deque[UnsentReport] = deque()

    def put(self, number: int, content: ReportWithEvents) -> None:
        """Add a report under the next higher number. Join older ones if too many wait."""
        self.waiting.append(UnsentReport(number, content))
        if len(self.waiting) <= UNSENT:
            return
        first, *rest = self.waiting
        half = len(rest) // 2
        joined: list[UnsentReport] = []
        for unsent in rest[:half]:
            reports = [unsent.content.report]
            if joined and joined[-1].champion == unsent.champion:
                reports.insert(0, joined.pop().content.report)
            counts = ReportWithEvents(counts_alone(reports), [], [])
            joined.append(UnsentReport(unsent.number, counts))
        self.waiting = deque([first, *joined, *rest[half:]])


class ReportSender:
    """The reports and summaries of a process that wait for the store.

    `dropped` is called with the detector and the number of rows of each summary that is dropped.
    """

    def __init__(self, stores: Stores, process: str, dropped: Callable[[str, int], None]) -> None:
        self._stores = stores
        self._process = process
        self._dropped = dropped
        self._outboxes: dict[str, Outbox] = {}  # by detector
        self._live: dict[str, list[WaitingSummary]] = {}
        self._live_bytes = 0
        self._away = False  # whether the store failed to answer in this round of sending
        self._numbers = itertools.count(1)  # numbers of reports; a detector's numbers rise
        self._sending = asyncio.Lock()
        self._beat_at = 0.0

    def queue_report(self, name: str, report: ReportWithEvents) -> None:
        """Queue a report of the detector `name`."""
        self._outboxes.setdefault(name, Outbox()).put(next(self._numbers), report)

    def queue_summary(self, name: str, waiting: WaitingSummary) -> None:
        """Queue a summary, or drop it if too many bytes wait."""
        if self._live_bytes + waiting.size > _WAITING_BYTES:
            self._dropped(name, waiting.summary.n)
            return
        self._live_bytes += waiting.size
        self._live.setdefault(name, []).append(waiting)

    def alarmed(self, name: str) -> set[str]:
        """Return the digests of the alarming vectors in reports that wait."""
        waiting = self._outboxes[name].waiting if name in self._outboxes else ()
        return {row for unsent in waiting for row in unsent.content.alarmed}

    async def beat(self, loaded: Collection[Champion]) -> None:
        """Report that this process is alive, and which generations it serves."""
        if time.monotonic() < self._beat_at:
            return
        generations = {champion.name: champion.generation for champion in loaded}
        with contextlib.suppress(StoreUnavailable):
            await self._stores.processes.beat(self._process, generations)
            self._beat_at = time.monotonic() + _BEAT_SECONDS

    async def send(self) -> None:
        """Send all that waits, several detectors at once, until the store does not answer.

        The reports of one detector are sent one after another, the oldest first, so that their
        numbers rise. A report waits until the store has it. A summary that cannot be sent is
        dropped.
        """
        async with self._sending:
            live, self._live, self._live_bytes, self._away = self._live, {}, 0, False
            places = asyncio.Semaphore(_AT_ONCE)

            async def placed(work: Coroutine[Any, Any, None]) -> None:
                async with places:
                    await work

            async with asyncio.TaskGroup() as tasks:
                for name, waiting in live.items():
                    tasks.create_task(placed(self._send_live(name, waiting)))
                for name in self._outboxes:
                    tasks.create_task(placed(self._send_reports(name)))

    async def _send_live(self, name: str, waiting: list[WaitingSummary]) -> None:
        for entry in waiting:
            if self._away or not await self._send_summary(name, entry):
                self._dropped(name, entry.summary.n)

    async def _send_summary(self, name: str, waiting: WaitingSummary) -> bool:
        """Return whether the store took the summary."""
        try:
            await self._stores.live.append(name, waiting.summary)
            if len(waiting.X):
                await self._stores.live.add_to_sample(
                    name, waiting.summary.uid, waiting.X, waiting.most
                )
        except StoreUnavailable:
            self._away = True
        except Exception:  # noqa: BLE001 - the others' summaries must not be lost too
            _log.exception("sending a live summary failed", detector=name)
            return False
        return not self._away

    async def _send_reports(self, name: str) -> None:
        outbox = self._outboxes[name]
        try:
            while outbox.waiting and not self._away:
                number, (report, events, alarmed) = outbox.waiting[0]
                await self._stores.traffic.send(
                    name, self._process, number, report, events, alarmed
                )
                outbox.waiting.popleft()
        except StoreUnavailable:
            self._away = True  # the reports wait
        if not outbox.waiting:
            del self._outboxes[name]
