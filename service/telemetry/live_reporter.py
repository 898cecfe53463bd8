"""Reports scored rows to the drift monitor and the incident monitor, outside of requests.

A request only leaves references to its rows. Once a second the rows are sampled, counted against
the version's reference and sent. Memory is bounded. Data for drift that does not fit, or that the
store does not take, is dropped and counted. The counts of rows and alarms are exact: they are kept
until the store answers.
"""

import asyncio
import contextlib
import os
import secrets
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.version.judgement import Judgement, rows_of
from models.version.version import Version
from service import log
from service.domain.champion import Champion
from service.domain.live_summary import LiveSummary
from service.problems import StoreUnavailable
from service.scoring.champions import Champions
from service.scoring.core import Judged
from service.store.adapters import Stores
from service.telemetry.metrics import Metrics
from service.telemetry.report_sender import ReportSender, WaitingSummary
from service.telemetry.traffic_collector import Collected, ReportWithEvents, make_report

_log = log.get(__name__)

FLUSH_SECONDS = 1.0
_LOOK_SECONDS = 0.1  # between two checks for unloaded champions
UNLOADED_BYTES = 16 * 2**20  # most bytes of unloaded champions that unreported rows keep in memory
SAMPLED = 2000  # rows of one detector in one summary
# How many of these rows are placed in a regime. A row costs half a pass through the network, so
# fewer rows are placed if vectors are wide.
PLACED = 256
_PLACED_NUMBERS = 32_768
SHADOWED = 100  # live vectors of one detector that one process keeps each second
Counts = NDArray[np.int64]
_NO_ROWS = np.empty((0, 1), np.float32)
_PENDING_ROWS = 20_000  # most rows of one detector between two flushes
_PENDING_BYTES = 32 * 2**20  # most bytes of all rows between two flushes


@dataclass(slots=True)
class _Pending:
    """The rows scored with one champion since the last flush."""

    chunks: list[tuple[Array, Judgement]] = field(default_factory=list)
    rows: int = 0  # the rows in `chunks`
    scored: int = 0  # all scored rows, also those that were dropped
    anomalies: int = 0
    collected: Collected = field(default_factory=Collected)


class LiveReporter:
    """Collects scored rows (as a `scoring.Recorder`) and reports them to the store."""

    def __init__(self, stores: Stores, champions: Champions, metrics: Metrics) -> None:
        self._clock = stores.clock  # rows are dated with the store's time; the watcher compares it
        self._champions = champions
        self._metrics = metrics
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._sender = ReportSender(stores, self._process, metrics.dropped)
        self._pending: dict[Champion, _Pending] = {}
        self._noted: list[dict[Champion, _Pending]] = []  # rows whose reports are being made
        self._bytes = 0
        self._making = asyncio.Lock()  # held while reports are made, in the order of the rows

    def scored(self, judged: Judged, seconds: float) -> None:
        """Note the rows of answers. For small answers only references are kept."""
        del seconds
        champion, X, judgement, _, tags = judged
        if champion.pinned or champion.stands_for is not None:
            return  # drift and events are about the detector's own champion and rows
        pending = self._pending.get(champion)
        if pending is None:
            pending = self._pending[champion] = _Pending()
        n = len(X)
        pending.scored += n
        pending.anomalies += int(np.count_nonzero(judgement.is_anomaly))
        pending.collected.add(X, judgement, self._clock.last_known(), tags)
        if n > SAMPLED:
            X, judgement = _evenly_sampled(X, judgement)
        if pending.rows + len(X) > _PENDING_ROWS or self._bytes + X.nbytes > _PENDING_BYTES:
            self._metrics.dropped(champion.name, n)
            return
        pending.rows += len(X)
        self._bytes += X.nbytes
        pending.chunks.append((X, judgement))

    async def run(self) -> None:
        """Report once a second until cancelled. Rows of unloaded champions are reported earlier.

        One task makes the reports and another sends them, so that a slow store does not keep
        champions in memory.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._make_reports_forever())
            tasks.create_task(self._send_forever())

    async def _make_reports_forever(self) -> None:
        made_at = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            # An error in drift must not end scoring.
            with log.tolerated(_log, "making live summaries failed; it is tried again"):
                if time.monotonic() - made_at >= FLUSH_SECONDS:
                    made_at = time.monotonic()
                    await self._make_all_reports()
                else:
                    await self.make_reports_of_unloaded()

    async def _send_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with log.tolerated(_log, "sending reports failed; it is tried again"):
                await self._sender.send()
                await self._sender.beat(self._champions.loaded())

    async def flush(self) -> None:
        """Report all noted rows."""
        await self._make_all_reports()
        await self._sender.send()

    async def _make_all_reports(self) -> None:
        async with self._making:
            noted, self._pending, self._bytes = self._pending, {}, 0
            await self._make_reports(noted)

    async def make_reports_of_unloaded(self) -> None:
        """Make the reports of unloaded champions if these take much memory.

        Their versions stay in memory until then, because the reports need them.
        """
        if not self._champions.on_demand:
            return
        async with self._making:
            unloaded = [
                champion
                for champion in self._pending
                if self._champions.get(champion.name) is not champion
            ]
            if sum(champion.bytes for champion in unloaded) > UNLOADED_BYTES:
                await self._make_reports(
                    {champion: self._pending.pop(champion) for champion in unloaded}
                )

    async def _make_reports(self, noted: dict[Champion, _Pending]) -> None:
        """Make the reports of noted rows. Release each champion as soon as its report is made."""
        self._noted.append(noted)
        try:
            while noted:
                champion, pending = next(iter(noted.items()))
                try:
                    X, summary, report = await asyncio.to_thread(self._summarise, champion, pending)
                    self._sender.queue_report(champion.name, report)
                    self._queue_summary(champion.name, summary, X)
                except Exception:  # noqa: BLE001 - the others' summaries must not be lost too
                    _log.exception("making a live summary failed", detector=champion.name)
                    self._metrics.dropped(champion.name, pending.scored)
                finally:
                    del noted[champion]
        finally:
            self._noted = [other for other in self._noted if other is not noted]

    def _queue_summary(self, name: str, summary: LiveSummary, X: Array) -> None:
        """Queue a summary for the store, with some vectors if the config has a shadow stage."""
        detector = self._champions.detector(name)
        shadow = detector.config.retrain.shadow if detector else None
        rows = np.linspace(0, len(X) - 1, min(len(X), SHADOWED if shadow else 0)).astype(np.intp)
        self._sender.queue_summary(
            name, WaitingSummary(summary, X[rows], shadow.vectors if shadow else 0)
        )

    def alarmed(self, name: str) -> set[str]:
        """Return the digests of this process's alarming vectors that are not in the store yet."""
        noted_rows = {
            row
            for noted in (self._pending, *self._noted)
            for champion, pending in noted.items()
            if champion.name == name
            for row in pending.collected.alarmed()
        }
        return noted_rows | self._sender.alarmed(name)

    def _summarise(
        self, champion: Champion, pending: _Pending
    ) -> tuple[Array, LiveSummary, ReportWithEvents]:
        X = np.concatenate([chunk for chunk, _ in pending.chunks] or [_NO_ROWS])
        judgement = Judgement(
            *(
                np.concatenate([getattr(chunk, name) for _, chunk in pending.chunks] or [[]])
                for name in Judgement._fields
            )
        )
        X, judgement = _evenly_sampled(X, judgement)
        whole = ~np.isnan(X).any(axis=1)  # a missing value belongs to no bin
        X, judgement_of_whole = X[whole], rows_of(judgement, np.flatnonzero(whole))
        regimes = _regime_counts(champion.version, X, judgement_of_whole)
        counts = champion.version.reference.bin_counts(X) if len(X) else np.empty((0, 0), np.int64)
        summary = LiveSummary(
            uid=champion.uid,
            generation=champion.generation,
            version=champion.number,
            sha256=champion.pointer.sha256 or "",
            process=self._process,
            n=pending.scored,
            anomalies=pending.anomalies,
            rows=len(X),
            scores=judgement.scores.astype("<f4").tobytes(),
            p_values=judgement.p_values.astype("<f4").tobytes(),
            counts=counts.astype("<i8").tobytes(),
            regimes=regimes.astype("<i8").tobytes(),
            t=time.time(),
        )
        now = self._clock.last_known()
        report = make_report(champion, pending.collected, regimes.tolist(), now)
        return X, summary, report

    async def close(self) -> None:
        """Report the rows of the last second, if the store answers."""
        with contextlib.suppress(StoreUnavailable):
            await self.flush()


def _evenly_sampled(X: Array, judgement: Judgement, most: int = SAMPLED) -> tuple[Array, Judgement]:
    """Return copies of at most `most` rows at even distances."""
    if len(X) <= most:
        return X, judgement
    rows = np.linspace(0, len(X) - 1, most).astype(np.intp)
    return X[rows], rows_of(judgement, rows)


def _regime_counts(version: Version, X: Array, judgement: Judgement) -> Counts:
    """Count some of the rows: anomalies first, then the rows of each of R regimes, (R + 1,)."""
    if version.boundaries is None or not len(X):
        return np.empty(0, np.int64)
    X, judgement = _evenly_sampled(
        X, judgement, min(PLACED, max(16, _PLACED_NUMBERS // X.shape[1]))
    )
    nearest = version.boundaries.nearest(version.network, version.scaler.transform(X))
    places = np.where(judgement.is_anomaly, 0, 1 + nearest)
    return np.bincount(places, minlength=1 + len(version.regimes))
