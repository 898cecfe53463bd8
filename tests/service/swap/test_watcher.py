"""The hot swap goes forward, is verified, and happens only if loading works."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from models import Version
from service.domain.detector_config import DetectorConfig
from service.domain.event import Label
from service.problems import StoreUnavailable, Unknown
from service.scoring.champions import Champions
from service.settings import Settings
from service.store.adapters import Stores
from service.store.labels import LabelStore
from service.store.redis_keys import NOTIFY, Keys, due
from service.swap.watcher import Watcher
from service.telemetry.metrics import Metrics
from tests.service.stored import Stored, matrix
from tests.service.trained import versions
from tests.waiting import until

pytestmark = pytest.mark.anyio


@dataclass
class Watched:
    """A watcher over a store on which `stored` does the worker's steps."""

    stored: Stored
    watcher: Watcher
    registry: CollectorRegistry

    async def learn(self, version: Version, *, good: bool = True) -> int:
        """Promote a version that learned 40 vectors."""
        return await self.stored.learn(artifact=version.to_bytes(), good=good)

    def serving(self) -> tuple[int, int, int] | None:
        """Return the version, generation and revision that are served."""
        champion = self.watcher.champions.get("pump")
        return champion and (champion.number, champion.generation, champion.config_revision)

    def count(self, name: str) -> float:
        """Return a counter of the detector."""
        return self.registry.get_sample_value(f"anamnesis_{name}", {"detector": "pump"}) or 0.0


@pytest.fixture
async def watched(stored: Stored, store_url: str) -> AsyncIterator[Watched]:
    """Watch an empty store."""
    settings = Settings(redis_url=store_url, poll_seconds=0.1)
    stores = await Stores.open(settings, store_url)
    registry = CollectorRegistry()
    watcher = Watcher(stores, Champions(2), settings, Metrics(registry))
    yield Watched(stored, watcher, registry)
    await stores.close()


async def test_a_poll_follows_the_champion_pointer(watched: Watched) -> None:
    """After every poll the process has the store's champion, policy and generation."""
    await watched.watcher.poll()
    assert watched.serving() is None
    await watched.learn(versions()[0])
    await watched.watcher.poll()
    assert watched.serving() == (1, 1, 1)
    await watched.stored.make(threshold={"value": 7.0})
    await watched.watcher.poll()
    assert watched.serving() == (1, 1, 2)
    assert watched.watcher.champions.serving("pump").threshold.value == 7.0
    await watched.learn(versions()[1])
    await watched.stored.registry.set_champion("pump", 1)
    await watched.watcher.poll()
    assert watched.serving() == (1, 3, 2)
    # a version that was loaded before is reused
    assert watched.count("swap_duration_seconds_count") == 1


async def test_many_detectors_are_polled_in_turns(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll reads a part of many detectors; four polls find every change and every deletion."""
    monkeypatch.setattr("service.swap.watcher._READ_AT_ONCE", 4)
    watcher, detectors = watched.watcher, watched.stored.detectors
    names = [f"pump-{number}" for number in range(40)]
    for name in names:
        await detectors.put(name, DetectorConfig())
    await watcher.poll()  # the first reads all
    for name in names[1:]:
        await detectors.put(name, DetectorConfig(threshold={"fpr": 0.02}))
    await detectors.delete(names[0])

    def followed() -> int:
        return sum(state.config_revision == 2 for state in watcher.champions.detectors())

    counts = [followed()]
    for _ in range(4):
        await watcher.poll()
        counts.append(followed())
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[1] < counts[2] < counts[4] == 39
    assert watcher.champions.detector(names[0]) is None


async def test_a_notification_is_followed_before_the_next_poll(watched: Watched) -> None:
    """A promotion is served at once, long before the next poll."""
    settings = Settings(redis_url="", poll_seconds=2)
    watcher = Watcher(
        watched.watcher.stores, watched.watcher.champions, settings, Metrics(CollectorRegistry())
    )
    running = asyncio.create_task(watcher.run())

    async def detector_is_known() -> bool:
        return watcher.champions.detector("pump") is not None

    await until(detector_is_known)

    async def is_subscribed() -> bool:
        subscribers = await watched.stored.redis.pubsub_numsub(NOTIFY)
        return subscribers[0][1] == 1

    await until(is_subscribed)
    await watched.learn(versions()[0])

    async def version_1_serves() -> bool:
        return watched.serving() == (1, 1, 1)

    await until(version_1_serves)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("damage", ["flip", "cut", "other", "gone"])
async def test_a_damaged_artifact_leaves_the_old_version(watched: Watched, damage: str) -> None:
    """If an artifact cannot be verified, the old version stays, and a metric reports it."""
    await watched.learn(versions()[0])
    await watched.watcher.poll()
    await watched.stored.buffer.ingest("pump", matrix(40))
    number = await watched.learn(versions()[1])
    redis = watched.stored.redis
    digest = (await redis.hget(Keys("pump").artifacts, str(number))).decode()
    key = Keys("pump").artifact(digest)
    data = await redis.get(key)
    damaged = {
        "flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "cut": data[:-1],
        "other": versions()[0].to_bytes(),
    }
    if damage == "gone":
        await redis.delete(key)
    else:
        await redis.set(key, damaged[damage])
    await watched.watcher.poll()
    await watched.watcher.poll()
    assert watched.serving() == (1, 1, 1)
    assert watched.count("artifact_failures_total") == 1
    await watched.stored.registry.set_champion("pump", 1)
    await watched.watcher.poll()
    assert watched.serving() == (1, 3, 1)


async def test_a_lack_of_memory_leaves_the_old_version(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old version goes on serving, the outcome names the cause, and later it is tried again."""
    await watched.learn(versions()[0])
    await watched.watcher.poll()
    await watched.stored.buffer.ingest("pump", matrix(40))
    await watched.learn(versions()[1])
    monkeypatch.setattr("service.swap.swapper._FAILED_SECONDS", 0.0)
    with monkeypatch.context() as short:

        def without_memory(*_: object) -> None:
            raise MemoryError

        short.setattr("service.swap.swapper.prepared", without_memory)
        await watched.watcher.poll()
    assert watched.serving() == (1, 1, 1)
    assert watched.count("artifact_failures_total") == 1
    await watched.watcher.poll()
    assert watched.serving() == (2, 2, 1)


async def test_an_older_generation_in_the_store_is_not_served(watched: Watched) -> None:
    """An older generation in the store is not served, and is counted once."""
    await watched.learn(versions()[0])
    await watched.learn(versions()[1])
    await watched.watcher.poll()
    await watched.stored.redis.hset(Keys("pump").state, "generation", 1)
    await watched.stored.redis.hset(Keys("pump").state, "champion", 1)
    for _ in range(3):
        await watched.watcher.poll()
    assert watched.serving() == (2, 2, 1)
    assert watched.count("store_regressions_total") == 1


async def test_a_lost_detector_is_not_taken_for_a_deleted_one(watched: Watched) -> None:
    """A deleted detector is unloaded, a lost one stays, and a new one replaces it."""
    await watched.learn(versions()[0])
    await watched.watcher.poll()
    await watched.stored.redis.flushall()
    await watched.watcher.poll()
    assert watched.serving() == (1, 1, 1)
    await watched.stored.make()
    await watched.watcher.poll()
    assert watched.serving() is None
    await watched.learn(versions()[1])
    await watched.watcher.poll()
    assert watched.serving() == (1, 1, 1)
    await watched.stored.detectors.delete("pump")
    await watched.watcher.poll()
    assert watched.serving() is None
    assert watched.watcher.champions.detector("pump") is None


async def test_a_pinned_version_that_becomes_champion_keeps_its_figures(watched: Watched) -> None:
    """A version that was pinned keeps its age and size when it becomes champion."""
    for version in versions():
        await watched.learn(version)
    await watched.watcher.poll()
    first = await watched.watcher.pinned("pump", 1)
    await watched.stored.registry.set_champion("pump", 1)
    await watched.watcher.poll()
    served = watched.watcher.champions.serving("pump")
    assert served.version is first.version
    assert served.trained_at
    assert served.bytes


async def test_a_pin_is_loaded_and_recorded_once(watched: Watched) -> None:
    """A pin is loaded and recorded in the store once; an unknown version is refused."""
    await watched.learn(versions()[0])
    await watched.learn(versions()[1])
    await watched.watcher.poll()
    for _ in range(3):
        assert (await watched.watcher.pinned("pump", 1)).number == 1
    assert await watched.stored.redis.zcard(Keys("pump").pins) == 1
    with pytest.raises(Unknown):
        await watched.watcher.pinned("pump", 3)


async def test_unknown_names_are_asked_for_once(watched: Watched) -> None:
    """A name that the store does not know is asked for at most once a second."""
    assert await watched.watcher.look_up("new") is None
    await watched.stored.make("new")
    assert await watched.watcher.look_up("new") is None
    await watched.watcher.poll()
    detector = await watched.watcher.look_up("new")
    assert detector is not None
    assert detector.name == "new"


async def test_polling_an_absent_store_fails_in_time(own_store: object) -> None:
    """Polling an absent store fails in time and marks it as away."""
    url: str = own_store.url  # type: ignore[attr-defined]
    settings = Settings(redis_url=url)
    stores = await Stores.open(settings, url)
    watcher = Watcher(stores, Champions(2), settings, Metrics(CollectorRegistry()))
    await watcher.poll()
    assert watcher.health.redis_up
    own_store.kill()  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(watcher.poll(), 1.0)
    assert not watcher.health.redis_up
    await stores.close()


async def test_labels_move_the_threshold(watched: Watched, tmp_path: Path) -> None:
    """Labels decide in every process once there are five of each; until then 1 % holds."""
    version, far = versions()[0], matrix(6, seed=1) + 9
    await watched.learn(version)
    uid = (await watched.stored.make(threshold={"labels": {"beta": 1}})).uid
    await watched.watcher.poll()
    threshold = watched.watcher.champions.serving("pump").threshold
    assert threshold.value == version.threshold_for({"fpr": 0.01}).value
    assert (threshold.calibration, threshold.labels) == (
        "insufficient", {"anomaly": 0, "normal": 0, "needed": 5},
    )  # fmt: skip

    labels_of = LabelStore(watched.stored.redis)
    labels = [Label("anomaly", row) for row in far]
    labels += [Label("normal", row) for row in matrix(5)]
    # of an earlier dimension
    labels += [Label("anomaly", row) for row in matrix(9, d=2)]
    labels += [Label("normal", far[5])]  # labelled twice: the last label counts
    await labels_of.add("pump", uid, labels)
    await watched.watcher.poll()
    moved = watched.watcher.champions.serving("pump")
    scores = version.score(far)
    assert moved.threshold.labels == {"anomaly": 5, "normal": 6, "needed": 5, "bounded": 1}
    assert moved.threshold.value <= scores[:5].max()
    assert moved.threshold.value != threshold.value
    assert watched.serving() == (1, 1, 3)

    settings = Settings(redis_url="", cache_dir=tmp_path)
    other = Watcher(watched.watcher.stores, Champions(2), settings, Metrics(CollectorRegistry()))
    await other.poll()
    assert other.champions.serving("pump").threshold == moved.threshold
    other_process = Watcher(
        watched.watcher.stores, Champions(2), settings, Metrics(CollectorRegistry())
    )
    await other_process.restore()
    assert other_process.champions.serving("pump").threshold == moved.threshold

    await watched.learn(versions()[1])
    await watched.watcher.poll()
    pinned = await watched.watcher.pinned("pump", 1)
    assert pinned.threshold == moved.threshold
    assert watched.watcher.champions.serving("pump").threshold != moved.threshold
    await watched.stored.make(threshold={"value": 7.0})
    await watched.watcher.poll()
    assert watched.watcher.champions.serving("pump").threshold.labels is None


async def test_without_a_worker_the_api_repairs_the_due_index(watched: Watched) -> None:
    """Without a worker the API repairs the due index, because scalers read it."""
    stores = watched.watcher.stores
    await watched.stored.make(retrain={"min_vectors": 40})
    await watched.stored.buffer.ingest("pump", matrix(40))
    await watched.stored.redis.delete(due("pump"))
    await stores.leases.beat("a worker")
    await watched.watcher.poll()
    assert (await stores.due.work()).due == 0  # as its janitor does
    await stores.leases.leave("a worker")
    await watched.watcher.poll()
    assert (await stores.due.work()).due == 1
