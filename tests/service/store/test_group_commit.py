"""Group commit, and normal batches that are written through it."""

import asyncio
import signal

import numpy as np
import pytest

from service.problems import BadVectors, BufferFull, StoreUnavailable
from service.store.buffer import Buffer
from service.store.connection import Script
from service.store.group_commit import MOST_CALLS, GroupCommit
from tests.service.stored import Stored, bounded, matrix
from tests.waiting import until

pytestmark = pytest.mark.anyio

# Fails for an empty argument, as a script does in the middle of its work.
_COUNT = Script("""
if ARGV[1] == '' then return redis.error_reply('WRONG nothing to count') end
return redis.call('INCRBY', KEYS[1], ARGV[1])
""")


async def test_callers_of_one_turn_share_one_transaction(redis):
    """Forty callers share one EXEC, and each gets the reply to its own call."""
    group = GroupCommit(redis, _COUNT)
    await _COUNT(redis, ("{t}:n",), (0,))
    await redis.config_resetstat()
    replies = await asyncio.gather(*(group("t", ("{t}:n",), (1,)) for _ in range(40)))
    assert replies == list(range(1, 41))
    stats = await redis.info("commandstats")
    assert stats["cmdstat_exec"]["calls"] == 1
    assert stats["cmdstat_evalsha"]["calls"] == 40


async def test_a_lost_script_runs_once_for_each_caller(redis):
    """If the server lost the script, nothing of the transaction ran, and all is sent again."""
    await redis.script_flush()
    group = GroupCommit(redis, _COUNT)
    assert await asyncio.gather(*(group("t", ("{t}:n",), (1,)) for _ in range(3))) == [1, 2, 3]


async def test_later_callers_share_the_next_bounded_transaction(redis):
    """Later callers share the next transaction, transactions are bounded, every call runs once."""
    group = GroupCommit(redis, _COUNT)
    calls = [group(tag, (f"{{{tag}}}:n",), (1,)) for tag in ("a", "b") for _ in range(150)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await redis.config_resetstat()
    replies = await asyncio.gather(*tasks)
    assert sorted(replies) == sorted(2 * list(range(1, 151)))
    stats = await redis.info("commandstats")
    assert 2 * 150 / MOST_CALLS <= stats["cmdstat_exec"]["calls"] <= 10


async def test_an_error_of_one_call_fails_no_other(redis):
    """An error is raised for its own caller; the other calls are written."""
    group = GroupCommit(redis, _COUNT)
    calls = [group("t", ("{t}:n",), (amount,)) for amount in (1, "", 1)]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, third) == (1, 2)
    assert "WRONG" in str(second)


async def test_batches_posted_together_each_get_their_own_answer(stored):
    """Each batch gets its own answer: accepted, of another width, one too many, a repetition."""
    buffer = Buffer(stored.redis, bounded(buffer_max_vectors=100))
    calls = [
        buffer.ingest("pump", matrix(40, seed=1)),
        buffer.ingest("pump", matrix(5, d=4)),
        buffer.ingest("pump", matrix(30, seed=2), idempotency_key="k"),
        buffer.ingest("pump", matrix(50, seed=3)),
        buffer.ingest("pump", matrix(30, seed=2), idempotency_key="k"),
        buffer.ingest("pump", matrix(2, seed=4)),
    ]
    first, other, keyed, full, again, last = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(other, BadVectors)
    assert isinstance(full, BufferFull)
    assert (keyed.duplicate, again.duplicate, again.batch_id) == (0, 30, keyed.batch_id)
    experience = await stored.take()
    assert experience.batch_ids == (first.batch_id, keyed.batch_id, last.batch_id)
    batches = [matrix(40, seed=1), matrix(30, seed=2), matrix(2, seed=4)]
    assert np.array_equal(experience.vectors, np.concatenate(batches))


async def test_calls_to_a_hanging_store_fail_for_good(own_store, own_redis):
    """All callers fail within a second, and a call that was not sent is not written later."""
    stored = Stored(own_redis)
    await stored.make()
    sent = await stored.buffer.ingest("pump", matrix(1))
    own_store.signal(signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    began = loop.time()
    in_flight = asyncio.ensure_future(stored.buffer.ingest("pump", matrix(2)))
    for _ in range(3):
        await asyncio.sleep(0)  # the next turn of the loop, in which it is sent
    waiting = [stored.buffer.ingest("pump", matrix(4)) for _ in range(20)]
    answers = await asyncio.gather(in_flight, *waiting, return_exceptions=True)
    assert loop.time() - began < 1.0
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    own_store.signal(signal.SIGCONT)
    own_store.wait()
    # The store may have read the call in flight before it was stopped.
    assert (await stored.get()).buffered in {sent.buffered, sent.buffered + 2}


async def test_every_acknowledged_batch_survives_a_kill_of_the_store(own_store, own_redis):
    """After a kill and a restart every acknowledged batch is there."""
    stored = Stored(own_redis)
    await stored.make()
    acknowledged = []

    async def post_until_killed(sender: int) -> None:
        while True:
            try:
                answer = await stored.buffer.ingest("pump", matrix(3, seed=sender))
            except StoreUnavailable:
                return
            acknowledged.append(answer.batch_id)

    async def many_are_acknowledged() -> bool:
        return len(acknowledged) > 200

    posts = [asyncio.create_task(post_until_killed(sender)) for sender in range(32)]
    await until(many_are_acknowledged)
    own_store.kill()
    await asyncio.gather(*posts)
    own_store.start()
    experience = await stored.take()
    assert set(acknowledged) <= set(experience.batch_ids)
    assert len(set(acknowledged)) == len(acknowledged)
