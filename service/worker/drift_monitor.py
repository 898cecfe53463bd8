"""Follows the live traffic of every detector and publishes its drift."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models import AnamnesisError, Version
from models.drift.finding import Verdict
from models.drift.regimes import LearnedRegime
from models.drift.state import Baseline, DriftTests, Sample
from models.parts.calibration import Threshold
from service import log
from service.domain import label_queries
from service.domain.detector import Detector, Pointer
from service.domain.drift_report import Drift, Query
from service.domain.live_summary import LiveSummary
from service.pacing import LONGEST
from service.problems import StoreUnavailable
from service.settings import Settings
from service.store.adapters import Stores
from service.store.labels import labels_for_threshold
from service.store.leases import Lease
from service.store.live_summaries import MonitorMemory
from service.store.lua import Fenced
from service.timestamps import rfc3339
from service.worker.incident_monitor import IncidentMonitor

_log = log.get(__name__)

SECONDS = 1.0  # between two rounds
# Between two saves, as a state has about 100 kB; a new verdict is saved at once.
_SAVE_SECONDS = 5.0
_SUMMARIES = 100  # most summaries of one read; further ones wait for the next round
_SCORES = 500  # most scores of one summary; each takes about 7 us
_ASK_SECONDS = 30.0  # between two choices of events for which labels are wanted
_LABELS = 1000  # latest labels that are searched for the answer to an event


@dataclass(slots=True)
class _Watch:
    """A detector that this process follows.

    `pointer` is the state of the detector that is watched. `after` is the id of the last summary
    that the tests have taken. `published` is the part of the last published verdict that is saved
    at once when it changes. `queries` were chosen at `asked_at`. `since` is when the published
    state began (RFC 3339).
    """

    lease: Lease
    drift: DriftTests
    detector: Detector
    version: Version
    threshold: Threshold
    pointer: Pointer
    after: str
    saved_at: float = -_SAVE_SECONDS
    unsaved: bool = True
    published: tuple[str | bool, ...] = ()
    queries: tuple[Query, ...] = ()
    asked_at: float = -_ASK_SECONDS
    since: str | None = None


class Monitor:
    """Watches every detector that no other process watches. `tick` is one round over all of them.

    API processes send summaries of the rows that they scored. The process that holds a detector's
    `monitor` lease reads all summaries in one order. So the verdict does not depend on the number
    of API processes. The tests' state is saved together with the place in the stream, so another
    process can go on exactly there.
    """

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self._least_seconds = self._seconds = settings.lease_seconds  # how long a lease lasts
        self._began = time.monotonic()  # when the latest round began
        self._artifact_max_bytes = settings.artifact_max_bytes
        self._stores = stores
        self._incidents = IncidentMonitor(settings, stores)
        self._watches: dict[str, _Watch] = {}
        # When to try again (monotonic), for detectors that other processes watch.
        self._not_before: dict[str, float] = {}

    async def tick(self) -> None:
        """Read the new summaries of every detector once. Raises StoreUnavailable."""
        began = time.monotonic()
        # A lease outlasts a round and the pause after it, or another worker takes the detector.
        self._seconds = max(self._least_seconds, min(2 * (began - self._began), LONGEST))
        self._began = began
        pointers = await self._stores.detectors.poll(await self._stores.detectors.names())
        for name in self._watches.keys() - pointers.keys():
            del self._watches[name]
            self._incidents.leave(name)
        now = time.monotonic()
        self._not_before = {name: at for name, at in self._not_before.items() if at > now}
        for name, pointer in pointers.items():
            if pointer.champion is None:
                self._watches.pop(name, None)
                continue
            try:
                await self._follow(name, pointer)
            except Fenced:
                self._leave(name)
            except StoreUnavailable:
                raise
            except Exception:  # noqa: BLE001 - an error of one detector must not stop the others
                _log.exception("watching a detector's drift failed", detector=name)
                self._leave(name)

    async def close(self) -> None:
        """Save and release the leases, so that other processes can go on at once."""
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            with contextlib.suppress(Fenced):
                await self._incidents.close(watch.lease)
            await self._stores.leases.release(watch.lease)

    async def _follow(self, name: str, pointer: Pointer) -> None:
        watch = await self._watch(name, pointer)
        if watch is None:
            return
        before = watch.pointer
        if (before.config_revision, before.config_nonce) != (
            pointer.config_revision, pointer.config_nonce
        ):  # fmt: skip
            await self._reconfigure(watch, name, pointer)
        summaries = await self._stores.live.read(name, watch.after, _SUMMARIES)
        if summaries:
            await asyncio.to_thread(_test_traffic, watch, summaries)
        due = time.monotonic() - watch.saved_at >= _SAVE_SECONDS
        if watch.unsaved and (due or _saved_at_once(watch.drift.verdict()) != watch.published):
            await self._save(watch)
        judges = watch.detector, watch.version, watch.threshold
        watch.unsaved |= watch.drift.attribute(*await self._incidents.look(watch.lease, *judges))

    def leases(self) -> list[Lease]:
        """Return the leases on the detectors that this process follows."""
        return [watch.lease for watch in self._watches.values()]

    async def _watch(self, name: str, pointer: Pointer) -> _Watch | None:
        """Return the watch over `pointer`'s version. Begin one if there is none."""
        watch = self._watches.get(name)
        lease = await self._hold_lease(name, watch.lease if watch else None)
        if lease is None:
            self._watches.pop(name, None)
            return None
        if watch is not None and _version_of(watch.pointer) == _version_of(pointer):
            watch.lease = lease
            return watch
        if lease.uid != pointer.uid:  # the detector was deleted and made again in between
            return None
        self._watches.pop(name, None)
        try:
            watch = await self._begin(lease, pointer)
        except AnamnesisError as error:
            # The API processes report the same error and go on with the version that they have.
            _log.warning(
                "drift is not watched: the version cannot be loaded", detector=name, why=str(error)
            )
            watch = None
        if watch is None:
            await self._stores.leases.release(lease)
            self._leave(name)
            return None
        renewed = await self._renewed(lease)  # on a busy machine, loading may take seconds
        if renewed is None:
            return None
        watch.lease = renewed
        self._watches[name] = watch
        return watch

    async def _hold_lease(self, name: str, lease: Lease | None) -> Lease | None:
        """Return a lease that lasts for this round, None if another process watches."""
        now = time.monotonic()
        if lease is not None:
            return lease if lease.deadline - now > lease.seconds / 2 else await self._renewed(lease)
        if now < self._not_before.get(name, 0.0):
            return None
        lease = await self._stores.leases.acquire(name, self._seconds, "monitor")
        if lease is None:
            self._leave(name)
        return lease

    async def _renewed(self, lease: Lease) -> Lease | None:
        """Return the lease, renewed. If it is over, return a new one.

        None if another process has had a lease since. Otherwise the watch in memory still continues
        the saved state, and nothing is loaded again.
        """
        renewed = await self._stores.leases.renew(replace(lease, seconds=self._seconds))
        if renewed is not None:
            return renewed
        again = await self._stores.leases.acquire(lease.name, self._seconds, lease.role)
        if again is None or (again.uid, again.token) == (lease.uid, lease.token + 1):
            return again
        await self._stores.leases.release(again)
        return None

    def _leave(self, name: str) -> None:
        """Leave the detector to other processes for a while."""
        self._watches.pop(name, None)
        self._incidents.leave(name)
        self._not_before[name] = time.monotonic() + self._seconds / 4

    async def _begin(self, lease: Lease, pointer: Pointer) -> _Watch | None:
        """Continue from the state that was saved for this version, or begin a new one."""
        name, number = lease.name, pointer.champion
        detector = await self._stores.detectors.get(name)
        artifact = await self._stores.registry.artifact(name, number or 0)
        if detector is None or detector.pointer != pointer or artifact is None:
            return None
        version = await asyncio.to_thread(Version.from_bytes, artifact, self._artifact_max_bytes)
        threshold = await self._threshold(version, detector)
        baseline = baseline_of(version, threshold, pointer.uid, number or 0)
        memory = await self._stores.live.load(name)
        drift = DriftTests.from_bytes(baseline, memory.state) if memory else DriftTests(baseline)
        after = memory.after if memory else "0-0"
        watch = _Watch(lease, drift, detector, version, threshold, pointer, after)
        stored = detector.drift
        if (stored.version, stored.state) == (number, drift.verdict().state):
            watch.since, watch.published = stored.since, (stored.state,)
        return watch

    async def _threshold(self, version: Version, detector: Detector) -> Threshold:
        labels = await labels_for_threshold(self._stores.labels, detector)
        return await asyncio.to_thread(version.threshold_for, detector.config.threshold, labels)

    async def _reconfigure(self, watch: _Watch, name: str, pointer: Pointer) -> None:
        detector = await self._stores.detectors.get(name)
        if detector is None or detector.pointer != pointer:
            return  # the champion has moved; the next round watches the new one
        watch.detector = detector
        version, threshold = watch.version, await self._threshold(watch.version, detector)
        watch.threshold = threshold
        watch.drift.baseline = baseline_of(version, threshold, pointer.uid, pointer.champion or 0)
        watch.pointer = pointer
        watch.unsaved, watch.saved_at = True, -_SAVE_SECONDS

    async def _save(self, watch: _Watch) -> None:
        verdict = watch.drift.verdict()
        memory = MonitorMemory(watch.after, watch.drift.to_bytes())
        if time.monotonic() - watch.asked_at >= _ASK_SECONDS:
            watch.queries, watch.asked_at = await self._queries(watch), time.monotonic()
        now = rfc3339(time.time())
        shown = _saved_at_once(verdict)
        changed = watch.published and shown[0] != watch.published[0]
        if changed or watch.since is None:
            watch.since = now
        report = Drift(
            verdict.state,
            verdict.version,
            verdict.statistics,
            watch.queries,
            at=now,
            updated_at=now,
            since=watch.since,
        )
        await self._stores.live.save(watch.lease, memory, report)
        if changed:
            before = watch.published[0]
            _log.info("drift changed", detector=watch.lease.name, state=shown[0], before=before)
        watch.published, watch.unsaved, watch.saved_at = shown, False, time.monotonic()

    async def _queries(self, watch: _Watch) -> tuple[Query, ...]:
        """Return the events whose labels would help most."""
        name = watch.lease.name
        events = await self._stores.events.latest(name, limit=label_queries.LOOKED_AT)
        labels = await self._stores.labels.latest(name, limit=_LABELS) if events else []
        answered = {label.event for label in labels if label.event}
        return await asyncio.to_thread(
            label_queries.choose, events, answered, watch.version, watch.threshold
        )


def _version_of(pointer: Pointer) -> tuple[str, int | None, str | None]:
    return pointer.uid, pointer.champion, pointer.sha256


def _saved_at_once(verdict: Verdict) -> tuple[str | bool, ...]:
    """Return the part of a verdict that is saved at once when it changes."""
    statistics = verdict.statistics
    tests = (statistics.martingale, statistics.adwin, statistics.anomalies, statistics.inputs)
    alarms = (test.alarm for test in tests if test)
    return (
        verdict.state,
        *alarms,
        *(feature.feature for feature in statistics.features if feature.alarm),
    )


def _test_traffic(watch: _Watch, summaries: Sequence[tuple[str, LiveSummary]]) -> None:
    """Give the tests the traffic of the watched version. Other versions' traffic is skipped."""
    baseline = watch.drift.baseline
    for at, summary in summaries:
        sha256 = summary.sha256 or watch.pointer.sha256
        if (summary.uid, summary.version, sha256) == (
            baseline.uid,
            baseline.version,
            watch.pointer.sha256,
        ):
            watch.drift.update(_sample(summary, len(baseline.features)))
        watch.after = at
    watch.unsaved = True


def _sample(summary: LiveSummary, d: int) -> Sample:
    return Sample(
        scores=_thinned(summary.scores),
        p_values=_thinned(summary.p_values),
        anomalies=summary.anomalies,
        scored=summary.n,
        counts=summary.bin_counts(d),
        regimes=summary.regime_counts,
    )


def baseline_of(version: Version, threshold: Threshold, uid: str, number: int) -> Baseline:
    """Return the reference of version `number` of a detector with `uid`, judged by `threshold`."""
    return Baseline(
        uid=uid,
        version=number,
        calibration=version.calibration.scores,
        expected=version.reference.expected,
        wander=version.reference.wander,
        score_wander=float(version.reference.score_wander[0]),
        reference_rows=version.calibration.n,
        features=version.features,
        alpha=threshold.alpha,
        threshold=threshold.value,
        regimes=_learned_regimes(version),
    )


def _learned_regimes(version: Version) -> list[LearnedRegime]:
    latest = version.lineage.experiences
    return [
        LearnedRegime(regime.number, regime.share, regime.seen == latest)
        for regime in version.regimes
    ]


def _thinned(packed: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return at most 500 of the values. They are chosen by position, so they are unbiased."""
    values = np.frombuffer(packed, np.dtype("<f4")).astype(np.float64)
    return values[:: max(1, -(-len(values) // _SCORES))]
