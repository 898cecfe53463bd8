import asyncio
from dataclasses import replace

import numpy as np
import pytest

from service.problems import BadVectors, BufferFull, UnknownDetector, Unprocessable
from service.store import buffer
from service.store.buffer import Buffer
from service.store.connection import connect
from service.store.redis_keys import Keys
from tests.service.stored import GOOD, Stored, bounded, matrix

pytestmark = pytest.mark.anyio


async def test_acknowledged_batches_are_read_back_whole(stored):
    """Batches are read back whole, in order, with their ids, bit for bit."""
    first, second = matrix(40, seed=1), matrix(3, seed=2)
    a = await stored.buffer.ingest("pump", first, sender="ann")
    b = await stored.buffer.ingest("pump", second)
    assert (a.accepted, a.quarantined, a.duplicate, a.buffered, b.buffered) == (40, 0, 0, 40, 43)
    experience = await stored.take()
    assert np.array_equal(experience.vectors, np.concatenate([first, second]))
    assert experience.batch_ids == (a.batch_id, b.batch_id)
    assert (experience.n, experience.bytes) == (43, 43 * 3 * 4)
    assert experience.senders == ("ann",)
    assert (experience.first, experience.champion, experience.generation) == ("0-0", None, 0)


async def test_reading_an_experience_changes_nothing(stored):
    """Until a promotion every worker gets the same experience."""
    await stored.buffer.ingest("pump", matrix(40))
    assert (await stored.take()).last == (await stored.take()).last
    assert (await stored.get()).buffered == 40


async def test_an_experience_can_be_read_without_its_rows(stored):
    """An experience without its rows has all that is needed to park it."""
    await stored.buffer.ingest("pump", matrix(40), sender="ann")
    with_rows, without_rows = await stored.take(), await stored.buffer.take("pump", rows=False)
    assert without_rows.vectors.size == 0
    assert replace(without_rows, vectors=None) == replace(with_rows, vectors=None)


async def test_an_empty_buffer_gives_no_experience(stored):
    """An empty buffer gives no experience, and neither does an unknown detector."""
    assert await stored.buffer.take("pump") is None
    assert await stored.buffer.take("other") is None


async def test_a_hundred_equal_posts_under_one_key_are_stored_once(stored):
    """All posts get the first answer, and only one of them is not a duplicate."""
    posts = [stored.buffer.ingest("pump", matrix(40), idempotency_key="k") for _ in range(100)]
    answers = await asyncio.gather(*posts)
    assert {(a.batch_id, a.accepted, a.buffered) for a in answers} == {
        (answers[0].batch_id, 40, 40)
    }
    assert sorted(a.duplicate for a in answers) == [0] + [40] * 99
    assert (await stored.get()).buffered == 40


async def test_a_duplicate_is_answered_even_if_the_buffer_is_full(stored):
    """A late retry stores nothing, even if the buffer is full or the data is learned."""
    await stored.buffer.ingest("pump", matrix(40), idempotency_key="k")
    await stored.learn()
    full = Buffer(stored.redis, bounded(buffer_max_vectors=1))
    assert (await full.ingest("pump", matrix(40), idempotency_key="k")).duplicate == 40
    assert (await stored.get()).buffered == 0


async def test_another_matrix_under_the_same_key_is_unprocessable(stored):
    """Other values under the same key are 422, and so are the same values in another shape."""
    await stored.buffer.ingest("pump", matrix(4), idempotency_key="k")
    for other in (matrix(4, seed=1), matrix(4).reshape(3, 4)):
        with pytest.raises(Unprocessable, match="Idempotency-Key"):
            await stored.buffer.ingest("pump", other, idempotency_key="k")
    assert (await stored.get()).buffered == 4


async def test_a_key_is_remembered_for_a_day(stored, redis):
    """A detector that is created again under the same name knows no earlier key."""
    await stored.buffer.ingest("pump", matrix(4), idempotency_key="k")
    assert 86_000 < await redis.ttl(Keys("pump").idempotency("k", "")) <= 86_400
    await stored.detectors.delete("pump")
    await stored.make()
    assert (await stored.buffer.ingest("pump", matrix(4), idempotency_key="k")).duplicate == 0
    assert (await stored.get()).buffered == 4


async def test_the_first_batch_fixes_the_dimension(stored):
    """A batch of another dimension is refused, and nothing of it is stored."""
    await stored.buffer.ingest("pump", matrix(4, 3))
    assert (await stored.get()).dimension == 3
    with pytest.raises(BadVectors, match="3"):
        await stored.buffer.ingest("pump", matrix(4, 5))
    assert (await stored.get()).buffered == 4


async def test_of_first_batches_that_race_one_dimension_wins(stored):
    """Every acknowledged batch of a race has the detector's dimension."""
    posts = [stored.buffer.ingest("pump", matrix(2, d)) for d in (2, 3) * 10]
    answers = await asyncio.gather(*posts, return_exceptions=True)
    assert sum(isinstance(a, BadVectors) for a in answers) == 10
    assert (await stored.take()).vectors.shape[0] == 20


async def test_the_bounds_include_parked_vectors(stored):
    """Beyond either bound a batch is refused as a whole; parked vectors count."""
    await stored.learn(40, good=False)
    with pytest.raises(BufferFull, match="40 parked") as caught:
        await Buffer(stored.redis, bounded(buffer_max_vectors=50)).ingest("pump", matrix(11))
    assert caught.value.headers["Retry-After"]
    tight = Buffer(stored.redis, bounded(buffer_max_bytes=50 * 12))
    with pytest.raises(BufferFull):
        await tight.ingest("pump", matrix(11))
    assert (await tight.ingest("pump", matrix(10))).buffered == 10


async def test_an_unknown_detector_takes_nothing(stored):
    """An unknown detector is refused, and so is one that was deleted meanwhile."""
    with pytest.raises(UnknownDetector):
        await stored.buffer.ingest("other", matrix(4))
    await stored.detectors.delete("pump")
    with pytest.raises(UnknownDetector):
        await stored.buffer.ingest("pump", matrix(4))
    assert not await stored.redis.exists(Keys("pump").stream)


async def test_an_experience_is_bounded_by_whole_batches(stored):
    """An experience ends with a whole batch; the rest waits for the next one."""
    small = Buffer(stored.redis, bounded(experience_max_vectors=100))
    for seed in range(5):
        await small.ingest("pump", matrix(40, seed=seed))
    first = await small.take("pump")
    assert first.n == 80
    lease = await stored.lease()
    await stored.registry.settle(lease, first, b"artifact", GOOD, seconds=1)
    second = await small.take("pump")
    assert (second.first, second.n) == (first.last, 80)


async def test_an_experience_is_never_too_small_to_learn(stored):
    """An experience always has enough vectors to learn, even if it exceeds the bound."""
    small = Buffer(stored.redis, bounded(experience_max_vectors=50))
    await small.ingest("pump", matrix(10))
    await small.ingest("pump", matrix(90))
    assert (await small.take("pump")).n == 100


async def test_a_large_buffer_is_read_in_pieces(stored):
    """A buffer with more entries than one read takes comes in order."""
    rows = np.arange(2500 * 2, dtype=np.float32).reshape(2500, 2)
    for start in range(0, 2500, 50):
        posts = rows[start : start + 50]
        await asyncio.gather(*(stored.buffer.ingest("pump", row[None]) for row in posts))
    experience = await stored.take()
    assert experience.n == len(experience.batch_ids) == 2500
    assert np.array_equal(np.sort(experience.vectors[:, 0]), rows[:, 0])
    assert len(experience.summary().batches) == 1000


async def test_the_age_of_the_buffer_is_that_of_its_oldest_batch(stored):
    """The age is that of the oldest batch that waits, or None."""
    assert (await stored.get()).buffer_oldest is None
    await stored.buffer.ingest("pump", matrix(40))
    oldest = (await stored.get()).buffer_oldest
    experience = await stored.take()
    await stored.buffer.ingest("pump", matrix(40))
    assert (await stored.get()).buffer_oldest == oldest
    lease = await stored.lease()
    await stored.registry.settle(lease, experience, b"a", GOOD, seconds=1)
    assert (await stored.get()).buffer_oldest >= oldest
    await stored.leases.release(lease)
    await stored.learn()
    assert (await stored.get()).buffer_oldest is None


async def test_one_batch_costs_one_round_trip(stored, redis):
    """A batch takes one call to the store, with or without a key."""
    await stored.buffer.ingest("pump", matrix(1))
    before = (await redis.info("commandstats")).get("cmdstat_evalsha", {}).get("calls", 0)
    await stored.buffer.ingest("pump", matrix(1), idempotency_key="k")
    stats = await redis.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == before + 1


async def test_every_adapter_works_on_redis_7_0(debian_process):
    """Redis 7.0 is enough for every adapter."""
    redis = await connect(debian_process.url)
    await redis.flushall()
    stored = Stored(redis)
    await stored.make()
    assert await stored.learn() == 1
    assert await stored.learn(good=False) == 2
    await stored.buffer.ingest("pump", matrix(40))
    lease = await stored.lease()
    entry = await stored.registry.park(lease, await stored.take(), "NaN", seconds=1)
    assert await stored.quarantine.decide("pump", entry, "release") == 40
    assert await stored.registry.set_champion("pump", 2) == 2
    assert await stored.registry.set_champion("pump", 1) == 3
    assert await stored.erasure.erase("pump", 0) == 40
    assert await stored.erasure.rewrite_due(0)
    assert await stored.erasure.rewrite()
    assert await stored.registry.prune("pump") == []
    assert len(await stored.registry.records("pump")) == 2
    await stored.detectors.delete("pump")
    await redis.aclose()


async def test_idempotency_keys_are_kept_by_sender(stored):
    """The same key of another sender is another batch."""
    stored_batch = await stored.buffer.ingest("pump", matrix(4), idempotency_key="1", sender="ann")
    theirs = await stored.buffer.ingest(
        "pump", matrix(5, seed=1), idempotency_key="1", sender="bob"
    )
    assert theirs.batch_id != stored_batch.batch_id
    repeated = await stored.buffer.ingest("pump", matrix(4), idempotency_key="1", sender="ann")
    assert (repeated.batch_id, repeated.duplicate) == (stored_batch.batch_id, 4)
    with pytest.raises(Unprocessable):
        await stored.buffer.ingest("pump", matrix(4), idempotency_key="1", sender="bob")


async def test_answers_are_bounded_by_sender(stored, redis, monkeypatch):
    """A sender that sends many batches evicts only its own oldest answers."""
    monkeypatch.setattr(buffer, "MOST_ANSWERS", 5)
    first = await stored.buffer.ingest("pump", matrix(1), idempotency_key="a", sender="ann")
    for number in range(12):
        await stored.buffer.ingest(
            "pump", matrix(1, seed=number), idempotency_key=f"b{number}", sender="bob"
        )
    of_bob = (Keys("pump").idempotency(f"b{number}", "bob") for number in range(12))
    assert await redis.exists(*of_bob) == 5
    repeated = await stored.buffer.ingest("pump", matrix(1), idempotency_key="a", sender="ann")
    assert repeated.batch_id == first.batch_id
    latest = await stored.buffer.ingest(
        "pump", matrix(1, seed=11), idempotency_key="b11", sender="bob"
    )
    assert latest.duplicate == 1


async def test_answers_are_deleted_with_the_detector(stored, redis):
    """After a deletion no record of an Idempotency-Key is left."""
    for number in range(7):
        await stored.buffer.ingest(
            "pump", matrix(1), idempotency_key=str(number), sender=str(number % 3)
        )
    await stored.detectors.delete("pump")
    remaining_keys = {key.decode() for key in await redis.keys("*{pump}*")}
    assert remaining_keys == {Keys("pump").audit, Keys("pump").tombstone}
