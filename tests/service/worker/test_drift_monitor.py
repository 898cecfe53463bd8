from dataclasses import replace

import msgspec
import numpy as np
import pytest

from models import Config, Model, Version, train
from models.drift.finding import Finding
from models.parts.labels import Labels
from service.domain.attention import of_detector
from service.domain.detector_config import parse
from service.domain.drift_report import NO_DRIFT, Drift
from service.domain.event import Event, Label
from service.domain.incident import Incident
from service.domain.live_summary import LiveSummary
from service.domain.traffic import Report
from service.pacing import LONGEST
from service.settings import Settings
from service.store.events import Events
from service.store.labels import LabelStore
from service.store.live_summaries import LiveSummaries
from service.store.redis_keys import Keys
from service.store.traffic import TrafficStore
from service.timestamps import rfc3339, unix_seconds
from service.worker.drift_monitor import Monitor
from tests.service.stored import Stored, matrix, monitor_over
from tests.waiting import until

pytestmark = pytest.mark.anyio

SETTINGS = Settings(lease_seconds=5.0)


@pytest.fixture(scope="module")
def version() -> Version:
    """Return a version that learned three independent standard normal features."""
    X = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
    config = Config(features=("a", "b", "c"), model=Model(epochs=30))
    return train(None, X, config)


def summary(version: Version, uid: str, X: np.ndarray, number: int = 1) -> LiveSummary:
    """Return the summary that an API process sends for scored vectors X (n, d)."""
    X = X.astype(np.float32)
    judged = version.judge(X)
    return LiveSummary(
        uid=uid,
        generation=1,
        version=number,
        process="test",
        n=len(X),
        scores=judged.scores.astype("<f4").tobytes(),
        p_values=judged.p_values.astype("<f4").tobytes(),
        anomalies=int(judged.is_anomaly.sum()),
        counts=version.reference.bin_counts(X).astype("<i8").tobytes(),
        regimes=np.bincount(version.regime_of(X), minlength=2).astype("<i8").tobytes(),
        rows=len(X),
        t=0.0,
    )


@pytest.fixture
async def watched(stored: Stored, version: Version) -> Stored:
    """Make `version` version 1 of detector `pump`."""
    await stored.learn(artifact=version.to_bytes())
    return stored


async def send(stored: Stored, version: Version, shift: float, times: int = 5, **more: int) -> None:
    """Send summaries of normal traffic, feature b moved by `shift`."""
    rng = np.random.default_rng(times)
    uid = (await stored.get()).uid
    for _ in range(times):
        X = rng.normal(size=(100, 3)) + np.array([0, shift, 0])
        assert await LiveSummaries(stored.redis).append("pump", summary(version, uid, X, **more))


def martingale(drift: Drift) -> Finding:
    """Return the martingale's part of a drift document."""
    return drift.statistics.martingale


async def test_a_shift_publishes_new_regime(watched: Stored, version: Version):
    """Shifted traffic turns the state to new_regime, which says what moved, and since when."""
    monitor = monitor_over(watched.redis, SETTINGS)
    await send(watched, version, 0.0)
    await monitor.tick()
    drift = (await watched.get()).drift
    assert (drift.state, drift.version) == ("none", 1)
    assert drift.updated_at.endswith("Z")
    before = drift.since
    await send(watched, version, 3.0, times=6)
    await monitor.tick()
    drift = (await watched.get()).drift
    assert drift.state == "new_regime"
    assert martingale(drift).alarm
    assert drift.statistics.features[0].feature == "b"
    assert drift.since == drift.at != before
    await send(watched, version, 3.0, times=1)
    await monitor.close()
    second = monitor_over(watched.redis, SETTINGS)
    await second.tick()
    later = (await watched.get()).drift
    assert later.since == drift.since != later.at
    detector, began = await watched.get(), unix_seconds(drift.since)
    (item,) = of_detector(detector, [], began, buffer_bound=1000)
    assert (item.kind, rfc3339(item.since)) == ("new_regime", drift.since)


async def test_an_open_incident_stands_for_young_drift_too(watched: Stored, version: Version):
    """One fault is listed once: drift is listed beside its incident only after an hour."""
    monitor = monitor_over(watched.redis, SETTINGS)
    await send(watched, version, 0.0)
    await send(watched, version, 3.0, times=6)
    await monitor.tick()
    detector = await watched.get()
    began = unix_seconds(detector.drift.since)
    fault = Incident("i1", "", began, began, 3.7, 5e-8, 34, 1, 1)

    def kinds(incident: Incident, verdict: str | None, after: float) -> list[str]:
        listed = of_detector(detector, [(incident, verdict)], began + after, buffer_bound=1000)
        return [item.kind for item in listed]

    assert kinds(fault, None, 60.0) == ["incident"]
    assert kinds(fault, "confirmed", 60.0) == kinds(fault, "dismissed", 60.0) == []
    assert kinds(fault, None, 3600.0) == ["incident", "new_regime"]
    (ahead, *_) = of_detector(detector, [(fault, None)], began - 3600.0, buffer_bound=1000)
    assert ahead.sentence.endswith("; that is in the future: check the client's clock")
    # Nobody was told of this incident, so the drift is listed at once.
    assert kinds(msgspec.structs.replace(fault, pages=False), None, 60.0) == ["new_regime"]


async def test_each_summary_is_counted_by_one_monitor(watched: Stored, version: Version):
    """Of two monitors one counts each summary; a later one continues exactly there."""
    first, second = (monitor_over(watched.redis, SETTINGS) for _ in range(2))
    await send(watched, version, 0.0)
    await first.tick()
    await second.tick()
    await send(watched, version, 0.5, times=2)
    await second.tick()
    await first.tick()
    await first.close()
    await send(watched, version, 0.5, times=1)
    third = monitor_over(watched.redis, SETTINGS)
    await third.tick()
    await third.close()
    continued = martingale((await watched.get()).drift)

    await watched.redis.delete(Keys("pump").monitor)
    await monitor_over(watched.redis, SETTINGS).tick()
    assert martingale((await watched.get()).drift) == continued
    assert continued.statistic != 0


async def test_a_dead_monitor_is_replaced(watched: Stored, version: Version):
    """After the lease of a dead monitor is over, another one continues."""
    short = Settings(lease_seconds=0.3)
    await monitor_over(watched.redis, short).tick()
    await send(watched, version, 3.0)
    second = monitor_over(watched.redis, short)

    async def shift_is_found() -> bool:
        await second.tick()
        return (await watched.get()).drift.state == "new_regime"

    await until(shift_is_found)


async def lease_is_over(watched: Stored) -> None:
    """Wait until the store has no lease of a monitor."""
    key = Keys("pump").lease("monitor")

    async def over() -> bool:
        return not await watched.redis.exists(key)

    await until(over)


async def end_lease(monitor: Monitor, watched: Stored) -> None:
    """End the monitor's lease, as if its seconds were over, in the store and in the monitor."""
    await watched.redis.delete(Keys("pump").lease("monitor"))
    watch = monitor._watches["pump"]
    watch.lease = replace(watch.lease, deadline=0.0)


def loads(monitor: Monitor, watched: Stored, *, slow: bool = False) -> list[str]:
    """Return a growing list of loaded versions; if `slow`, each load outlasts the lease."""
    names: list[str] = []
    read = monitor._stores.registry.artifact

    async def artifact(name: str, number: int) -> bytes | None:
        if slow:
            await lease_is_over(watched)
        names.append(name)
        return await read(name, number)

    monitor._stores.registry.artifact = artifact  # type: ignore[method-assign]
    return names


async def test_a_version_that_loads_slowly_is_watched(watched: Stored, version: Version):
    """On a busy machine a large version takes longer to load than a lease lasts."""
    monitor = monitor_over(watched.redis, Settings(lease_seconds=0.3))
    loads(monitor, watched, slow=True)
    await send(watched, version, 3.0)

    async def shift_is_found() -> bool:
        await monitor.tick()
        return (await watched.get()).drift.state == "new_regime"

    await until(shift_is_found)


async def test_a_monitor_whose_lease_ran_out_loads_nothing_again(watched: Stored, version: Version):
    """After a long pause the monitor goes on from memory if no other one watched meanwhile."""
    monitor = monitor_over(watched.redis, SETTINGS)
    loaded = loads(monitor, watched)
    await monitor.tick()
    await end_lease(monitor, watched)
    await send(watched, version, 3.0)
    await monitor.tick()
    assert loaded == ["pump"]
    await end_lease(monitor, watched)
    other = monitor_over(watched.redis, SETTINGS)
    await other.tick()
    await other.close()
    await monitor.tick()  # finds that another one watched
    await monitor.tick()
    assert loaded == ["pump", "pump"]


async def test_a_lease_outlasts_a_slow_round_and_its_pause(watched: Stored, version: Version):
    """With many detectors a round is slow, and no other worker may take them in the pause."""
    monitor = monitor_over(watched.redis, SETTINGS)
    await monitor.tick()
    monitor._began -= 20.0  # as if the round before had begun so long ago
    await end_lease(monitor, watched)
    await monitor.tick()
    (lease,) = monitor.leases()
    assert 40.0 <= lease.seconds <= LONGEST


async def test_a_new_version_starts_anew(watched: Stored, version: Version):
    """The bound holds for each version, so the drift test starts again with a new version."""
    monitor = monitor_over(watched.redis, SETTINGS)
    await send(watched, version, 3.0)
    await monitor.tick()
    assert (await watched.get()).drift.state == "new_regime"
    await watched.learn(artifact=version.with_config(Config(seed=1)).to_bytes(), seed=1)
    # Traffic that the old version scored does not count.
    await send(watched, version, 3.0, times=3)
    await monitor.tick()
    drift = (await watched.get()).drift
    assert (drift.state, drift.version) == ("none", 2)
    await send(watched, version, 3.0, times=4, number=2)
    await monitor.tick()
    assert (await watched.get()).drift.state == "new_regime"


async def test_a_detector_created_again_has_no_drift(watched: Stored, version: Version):
    """A detector that is created again has no drift and no version to watch."""
    monitor = monitor_over(watched.redis, SETTINGS)
    await send(watched, version, 3.0)
    await monitor.tick()
    await watched.detectors.delete("pump")
    await monitor.tick()
    await watched.make()
    await monitor.tick()
    assert (await watched.get()).drift == NO_DRIFT
    await watched.learn(artifact=version.to_bytes())
    await monitor.tick()
    assert (await watched.get()).drift.version == 1
    assert (await watched.get()).drift.state == "none"


async def test_a_new_policy_changes_the_share_that_is_a_burst(watched: Stored, version: Version):
    """After a change of the threshold's policy another share of anomalies is a burst."""
    monitor = monitor_over(watched.redis, SETTINGS)
    await send(watched, version, 0.0)
    await monitor.tick()
    await watched.detectors.put("pump", parse({"threshold": {"fpr": 0.1}}))
    await send(watched, version, 0.0, times=1)
    await monitor.tick()
    burst = (await watched.get()).drift.statistics.anomalies
    assert burst.threshold == pytest.approx(0.5)


async def test_labels_change_the_share_that_is_a_burst(watched: Stored, version: Version):
    """The usual share of anomalies follows from a threshold by labels."""
    policy, rows = {"labels": {"beta": 1}}, matrix(400, seed=3)
    # People label the outer half of the normals as anomalies.
    outer = version.score(rows) > np.median(version.calibration.scores)
    uid = (await watched.make(threshold=policy)).uid
    labels = [Label("anomaly" if out else "normal", x) for out, x in zip(outer, rows, strict=True)]
    assert await LabelStore(watched.redis).add("pump", uid, labels)
    monitor = monitor_over(watched.redis, SETTINGS)
    await send(watched, version, 0.0)
    await monitor.tick()
    burst = (await watched.get()).drift.statistics.anomalies
    alpha = version.threshold_for(policy, Labels(rows, outer)).alpha
    assert alpha == pytest.approx(0.1, rel=0.05)  # ten times the asked rate is the most
    assert burst.threshold > 0.3


async def test_an_unreadable_artifact_does_not_stop_the_monitor(stored: Stored):
    """If an artifact cannot be read, the detector has no drift and the monitor continues."""
    await stored.learn(artifact=b"no version")
    await monitor_over(stored.redis, SETTINGS).tick()
    assert (await stored.get()).drift == NO_DRIFT


async def test_the_saved_state_is_small(watched: Stored, version: Version):
    """The saved state has tens of kilobytes, however many rows were scored."""
    monitor = monitor_over(watched.redis, SETTINGS)
    for times in range(1, 30):
        await send(watched, version, 0.0, times=times)
        await monitor.tick()
    await monitor.close()
    await monitor_over(watched.redis, SETTINGS).tick()
    packed = await watched.redis.get(Keys("pump").monitor)
    assert len(packed) < 200_000
    assert msgspec.msgpack.decode(packed)[0] != "0-0"


async def test_regimes_and_queries_are_published(watched: Stored, version: Version):
    """The document has live shares of the regimes, and the events to label."""
    vector = np.array([0, 9, 0], np.float32)
    uid = (await watched.get()).uid
    odd = Event(
        at=0.0, vector=vector, score=99.0, p_value=1e-3, severity=1.5, version=1, generation=1
    )
    await TrafficStore(watched.redis).send("pump", "p", 1, Report(uid, 1, 1, ()), [odd])
    event_id = (await Events(watched.redis).latest("pump"))[0].id
    await send(watched, version, 0.0)
    await monitor_over(watched.redis, SETTINGS).tick()
    drift = (await watched.get()).drift
    regimes = drift.statistics.regimes
    (only,) = regimes.known
    assert (only.regime, only.state) == (1, "present")
    assert only.live + regimes.none == pytest.approx(1.0)
    assert [query.event for query in drift.queries] == [event_id]
