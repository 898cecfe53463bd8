"""The due index is written when a detector becomes due; the janitor repairs a lost write."""

import time

import pytest
from redis.asyncio import Redis

from service.domain.drift_report import Drift
from service.store.due_index import HEADS, DueIndex, Work
from service.store.live_summaries import LiveSummaries, MonitorMemory
from service.store.redis_keys import DUE, due, running
from tests.service.stored import Stored, matrix

pytestmark = pytest.mark.anyio

SOON = {"retrain": {"min_vectors": 64}}


@pytest.fixture
def index(redis: Redis) -> DueIndex:
    """Return the index of the test's store."""
    return DueIndex(redis)


async def due_and_running(index: DueIndex) -> tuple[int, int]:
    """Return how many detectors are due, and how many are being retrained."""
    work = await index.work()
    return work.due, work.running


async def _fill_buffer(stored: Stored) -> None:
    await stored.buffer.ingest("pump", matrix(40))
    await stored.buffer.ingest("pump", matrix(30, seed=1))


async def _lower_trigger(stored: Stored) -> None:
    await stored.make(retrain={"min_vectors": 1000})
    await stored.buffer.ingest("pump", matrix(70))
    await stored.make(**SOON)


async def _ask_to_retrain(stored: Stored) -> None:
    await stored.ask_to_retrain()


async def _mute_and_unmute(stored: Stored) -> None:
    await stored.detectors.mute("pump", 3600, "", "")
    await stored.buffer.ingest("pump", matrix(70))
    await stored.detectors.mute("pump", 0, "", "")


async def _release_rows(stored: Stored) -> None:
    await stored.learn(70, good=False)
    (entry,) = await stored.quarantine.list("pump")
    await stored.quarantine.decide("pump", entry.id, "release")


async def _drift(stored: Stored) -> None:
    await stored.make(retrain={"on_drift": True})
    await stored.buffer.ingest("pump", matrix(40))
    lease = await stored.leases.acquire("pump", 30.0, "monitor")
    assert lease is not None
    await LiveSummaries(stored.redis).save(lease, MonitorMemory("0-0", b""), Drift("new_regime"))


@pytest.mark.parametrize(
    "happens",
    [_fill_buffer, _lower_trigger, _ask_to_retrain, _mute_and_unmute, _release_rows, _drift],
)
async def test_every_cause_enters_the_detector_into_the_index(
    stored: Stored, index: DueIndex, happens
):
    """A batch, config, request, end of a mute, release or drift enters the detector."""
    await stored.make(**SOON)
    assert await index.heads() == {}
    await happens(stored)
    heads = await index.heads()
    assert list(heads) == ["pump"]
    assert 0 <= heads["pump"] < 60


async def test_only_a_batch_that_crosses_a_trigger_writes_the_index(stored: Stored, redis: Redis):
    """Only a batch that crosses a trigger costs a second command."""
    await stored.make(retrain={"min_vectors": 1000})
    await stored.buffer.ingest("pump", matrix(40))
    (at,) = [score for _, score in await redis.zrange(due("pump"), 0, -1, withscores=True)]
    assert at == pytest.approx(time.time() + 3600, abs=60)  # becomes due by age
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    for seed in range(5):
        await stored.buffer.ingest("pump", matrix(10, seed=seed))
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 5


async def test_a_detector_in_retraining_is_due_when_its_lease_ends(stored: Stored, index: DueIndex):
    """A hint during a retraining changes nothing; if the worker dies, the detector is due."""
    await stored.make(**SOON)
    await stored.buffer.ingest("pump", matrix(70))
    await index.begin("pump", 30.0)
    await stored.buffer.ingest("pump", matrix(70, seed=1))
    await index.refresh("pump")
    assert await index.work() == Work(0, 1, 0.0)
    await index.correct("pump")  # by a worker that does not retrain the detector
    assert await index.work() == Work(0, 1, 0.0)
    await index.begin("pump", -1.0)  # a lease that is over
    assert await due_and_running(index) == (1, 0)


async def test_after_a_retraining_only_waiting_rows_are_due(stored: Stored, index: DueIndex):
    """After a retraining a detector is due only if there is more to do."""
    await stored.make(**SOON)
    await stored.buffer.ingest("pump", matrix(70))
    await index.begin("pump", 30.0)
    await index.retraining_over("pump")
    assert await due_and_running(index) == (1, 0)
    await stored.learn(70, seed=1)
    await index.retraining_over("pump")
    assert await index.work() == Work(0, 0, 0.0)


async def test_work_counts_due_detectors_and_the_longest_wait(
    stored: Stored, index: DueIndex, redis: Redis
):
    """The count has all detectors that are due now, and the longest wait."""
    now = time.time()
    for number in range(100):
        name = f"p{number}"
        await redis.zadd(due(name), {name: now - number if number % 2 else now + 3600})
    await redis.zadd(running(due("r")), {"r": now + 60, "ended": now - 1})
    work = await index.work()
    assert (work.due, work.running) == (50, 1)
    assert work.oldest_seconds == pytest.approx(99, abs=20)
    heads = await index.heads()
    assert len(heads) <= HEADS * len(DUE)
    assert {"p99", "p1"} <= heads.keys()
    assert "p2" not in heads


async def test_the_janitor_fills_the_index_of_an_older_store(
    stored: Stored, index: DueIndex, redis: Redis
):
    """In a store of an older release the janitor enters all due detectors in one round."""
    for number in range(5):
        await stored.make(f"p{number}", **SOON)
        await stored.buffer.ingest(f"p{number}", matrix(70))
    for key in DUE:
        await redis.delete(key)
    await redis.zadd(due("p1"), {"p1": time.time() + 3600})  # a hint that is late
    detectors = await stored.detectors.list()
    assert await index.repair(detectors) == 5
    assert set(await index.heads()) == {f"p{number}" for number in range(5)}
    await index.begin("p0", 30.0)
    assert await index.repair(await stored.detectors.list()) == 0
    assert await due_and_running(index) == (4, 1)


async def test_a_deleted_detector_leaves_the_index(stored: Stored, index: DueIndex):
    """A deleted detector is removed from the index."""
    await _ask_to_retrain(stored)
    await stored.detectors.delete("pump")
    assert await index.work() == Work(0, 0, 0.0)


async def test_a_failed_write_to_the_index_fails_no_change(own_store, own_redis):
    """If the hint cannot be written, the change still succeeds."""
    stored = Stored(own_redis)
    detector = await stored.make(**SOON)
    own_store.kill()
    index = DueIndex(own_redis)
    await index.note(detector)
    await index.refresh("pump")
    await index.ingested("pump", 0, 70)
    await index.retraining_over("pump")
