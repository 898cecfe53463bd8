"""Reports scored rows to the drift monitor and the incident monitor, apart from the requests.

A request only leaves references to its rows. Once a second the rows are sampled, counted against
the version's reference and sent. Memory is bounded. Data for drift that does not fit, or that the
store does not take, is dropped and counted. The counts of rows and alarms are exact: they are kept
until the store answers.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.version.judgement import Judgement, rows_of
from models.version.version import Version
from service import log
from service.domain.champion import Champion
from service.domain.live_summary import LiveSummary
from service.domain.row_labels import NO_LABELS, RowLabels
from service.problems import StoreUnavailable
from service.scoring.champions import Champions
from service.scoring.vectors import Matrix
from service.store.adapters import Stores
from service.telemetry.metrics import Metrics
from service.telemetry.traffic_collector import Collected, Made, Outbox, made

_log = log.get(__name__)

FLUSH_SECONDS = 1.0
_LOOK_SECONDS = 0.1  # between two checks for unloaded champions
UNLOADED_BYTES = 16 * 2**20  # most bytes of unloaded champions that unreported rows keep in memory
_BEAT_SECONDS = 10.0  # between two heartbeats
SAMPLED = 2000  # rows of one detector in one summary
# Rows of those that are placed in a regime. A row costs half a pass through the network, so fewer
# rows of wide vectors are placed.
PLACED = 256
_PLACED_NUMBERS = 32_768
SHADOWED = 100  # live vectors of one detector that one process keeps each second
Counts = NDArray[np.int64]
_NO_ROWS = np.empty((0, 1), np.float32)
_PENDING_ROWS = 20_000  # most rows of one detector between two flushes
_PENDING_BYTES = 32 * 2**20  # most bytes of this process between two flushes


@dataclass(slots=True)
class _Pending:
    """The rows scored with one champion since the last flush."""

    chunks: list[tuple[Matrix, Judgement]] = field(default_factory=list)
    rows: int = 0  # the rows in `chunks`
    scored: int = 0  # all scored rows, also those that were dropped
    anomalies: int = 0
    collected: Collected = field(default_factory=Collected)


class Observer:
    """Collects scored rows (as a `scoring.Recorder`) and reports them to the store."""

    def __init__(self, stores: Stores, champions: Champions, metrics: Metrics) -> None:
        self._stores = stores
        self._champions = champions
        self._metrics = metrics
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._pending: dict[Champion, _Pending] = {}
        self._noted: list[dict[Champion, _Pending]] = []  # rows whose reports are being made
        self._bytes = 0
        self._outboxes: dict[str, Outbox] = {}  # detectors whose reports wait
        self._numbers = itertools.count(1)  # numbers of reports; a detector's numbers rise
        self._sending = asyncio.Lock()
        self._beat_at = 0.0

    def scored(
        self,
        champion: Champion,
        X: Matrix,
        columns: Judgement,
        seconds: float,
        requests: int = 1,
        labels: RowLabels = NO_LABELS,
    ) -> None:
        """Note the rows of answers. For small answers only references are kept."""
        del seconds, requests
        if champion.pinned or champion.stands_for is not None:
            return  # drift and events are about the detector's own champion and rows
        pending = self._pending.get(champion)
        if pending is None:
            pending = self._pending[champion] = _Pending()
        n = len(X)
        pending.scored += n
        pending.anomalies += int(np.count_nonzero(columns.is_anomaly))
        pending.collected.add(X, columns, time.time(), labels)
        if n > SAMPLED:
            X, columns = _sample(X, columns)
        if pending.rows + len(X) > _PENDING_ROWS or self._bytes + X.nbytes > _PENDING_BYTES:
            self._metrics.dropped(champion.name, n)
            return
        pending.rows += len(X)
        self._bytes += X.nbytes
        pending.chunks.append((X, columns))

    async def run(self) -> None:
        """Flush once a second until cancelled. Rows of unloaded champions are flushed earlier."""
        flushed = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if time.monotonic() - flushed >= FLUSH_SECONDS:
                    await self.flush()
                    await self._beat()
                    flushed = time.monotonic()
                else:
                    await self.flush_unloaded()
            except Exception:  # noqa: BLE001 - an error in drift must not end scoring
                _log.exception("live summary failed")
                flushed = time.monotonic()

    async def _beat(self) -> None:
        """Report that this process is alive, and which generations it serves."""
        if time.monotonic() < self._beat_at:
            return
        loaded = {one.name: one.generation for one in self._champions.loaded()}
        with contextlib.suppress(StoreUnavailable):
            await self._stores.processes.beat(self._process, loaded)
            self._beat_at = time.monotonic() + _BEAT_SECONDS

    async def flush(self) -> None:
        """Report all noted rows."""
        noted, self._pending, self._bytes = self._pending, {}, 0
        await self._flush(noted)

    async def flush_unloaded(self) -> None:
        """Report the rows of unloaded champions if these take much memory.

        Their versions stay in memory until then, because the reports need them.
        """
        if not self._champions.on_demand:
            return
        held = self._champions
        gone = [one for one in self._pending if held.get(one.name) is not one]
        if sum(one.bytes for one in gone) > UNLOADED_BYTES:
            await self._flush({one: self._pending.pop(one) for one in gone})

    async def _flush(self, noted: dict[Champion, _Pending]) -> None:
        self._noted.append(noted)
        try:
            await self._report(noted)
        finally:
            self._noted = [one for one in self._noted if one is not noted]
        with contextlib.suppress(StoreUnavailable):  # the reports wait
            await self._send()

    async def _report(self, noted: dict[Champion, _Pending]) -> None:
        """Report all noted rows. Release each champion as soon as its rows are reported."""
        while noted:
            champion, pending = next(iter(noted.items()))
            try:
                X, summary, report = await asyncio.to_thread(self._summarise, champion, pending)
                self._outboxes.setdefault(champion.name, Outbox()).put(next(self._numbers), report)
                await self._stores.live.append(champion.name, summary)
                await self._keep(champion, X)
            except StoreUnavailable:
                self._metrics.dropped(champion.name, pending.scored)
            except Exception:  # noqa: BLE001 - the others' summaries must not be lost too
                _log.exception("live summary failed", detector=champion.name)
                self._metrics.dropped(champion.name, pending.scored)
            finally:
                del noted[champion]

    def alarmed(self, name: str) -> set[str]:
        """Return the digests of this process's alarming vectors that are not in the store yet."""
        found = {
            one
            for noted in (self._pending, *self._noted)
            for champion, pending in noted.items()
            if champion.name == name
            for one in pending.collected.alarmed()
        }
        for unsent in self._outboxes[name].waiting if name in self._outboxes else ():
            found.update(unsent.made.alarmed)
        return found

    async def _send(self) -> None:
        """Send the reports that wait, oldest first, until the store does not answer."""
        async with self._sending:  # one sender at a time, so that the numbers of reports rise
            for name, outbox in list(self._outboxes.items()):
                while outbox.waiting:
                    number, (report, events, alarmed) = outbox.waiting[0]
                    await self._stores.traffic.send(
                        name, self._process, number, report, events, alarmed
                    )
                    outbox.waiting.popleft()
                del self._outboxes[name]

    def _summarise(self, champion: Champion, pending: _Pending) -> tuple[Matrix, LiveSummary, Made]:
        X = np.concatenate([chunk for chunk, _ in pending.chunks] or [_NO_ROWS])
        columns = Judgement(
            *(
                np.concatenate([getattr(chunk, name) for _, chunk in pending.chunks] or [[]])
                for name in Judgement._fields
            )
        )
        X, columns = _sample(X, columns)
        whole = ~np.isnan(X).any(axis=1)  # a missing value belongs to no bin
        X, columns_of_whole = X[whole], rows_of(columns, np.flatnonzero(whole))
        regimes = _regimes(champion.version, X, columns_of_whole)
        counts = champion.version.reference.count(X) if len(X) else np.empty((0, 0), np.int64)
        summary = LiveSummary(
            uid=champion.uid,
            generation=champion.generation,
            version=champion.number,
            sha256=champion.pointer.sha256 or "",
            process=self._process,
            n=pending.scored,
            anomalies=pending.anomalies,
            rows=len(X),
            scores=columns.scores.astype("<f4").tobytes(),
            p_values=columns.p_values.astype("<f4").tobytes(),
            counts=counts.astype("<i8").tobytes(),
            regimes=regimes.astype("<i8").tobytes(),
            t=time.time(),
        )
        report = made(champion, pending.collected, regimes.tolist(), time.time())
        return X, summary, report

    async def _keep(self, champion: Champion, X: Matrix) -> None:
        """Store some scored vectors for the shadow stage, if the config has one."""
        detector = self._champions.detector(champion.name)
        asked = detector.config.retrain.shadow if detector else None
        if asked is None or not len(X):
            return
        rows = np.linspace(0, len(X) - 1, min(len(X), SHADOWED)).astype(np.intp)
        await self._stores.live.keep(champion.name, champion.uid, X[rows], asked.vectors)

    async def close(self) -> None:
        """Report the rows of the last second, if the store answers."""
        with contextlib.suppress(StoreUnavailable):
            await self.flush()


def _sample(X: Matrix, columns: Judgement, most: int = SAMPLED) -> tuple[Matrix, Judgement]:
    """Return copies of at most `most` rows at even distances."""
    if len(X) <= most:
        return X, columns
    rows = np.linspace(0, len(X) - 1, most).astype(np.intp)
    return X[rows], rows_of(columns, rows)


def _regimes(version: Version, X: Matrix, columns: Judgement) -> Counts:
    """Count some of the rows: anomalies first, then the rows of each of R regimes, (R + 1,)."""
    if version.boundaries is None or not len(X):
        return np.empty(0, np.int64)
    X, columns = _sample(X, columns, min(PLACED, max(16, _PLACED_NUMBERS // X.shape[1])))
    nearest = version.boundaries.nearest(version.network, version.scaler.transform(X))
    places = np.where(columns.is_anomaly, 0, 1 + nearest)
    return np.bincount(places, minlength=1 + len(version.regimes))
