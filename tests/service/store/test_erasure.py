from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.domain.version_record import NewRecord
from service.problems import StoreUnavailable
from service.store import erasure
from service.store.redis_keys import Keys
from tests.service.stored import Stored, matrix
from tests.waiting import until

pytestmark = pytest.mark.anyio

MARKER = np.frombuffer(b"MARKER-OF-A-VECTOR-THAT-MUST-NOT", dtype="<f4").reshape(4, 2)


def on_disk(folder: Path) -> bool:
    """Return whether any file of the store holds the marker."""
    return any(
        MARKER.tobytes() in path.read_bytes() for path in folder.rglob("*") if path.is_file()
    )


async def test_a_learned_vector_leaves_the_disk(own_store, own_redis):
    """A learned vector leaves the stream at once, and the append-only file by the rewrite."""
    stored = Stored(own_redis)
    await stored.make()
    await stored.buffer.ingest("pump", MARKER)
    await stored.buffer.ingest("pump", matrix(40, 2))
    assert on_disk(own_store.folder)
    assert not await stored.erasure.rewrite_due(0)
    lease = await stored.lease()
    await stored.registry.settle(lease, await stored.take(), b"a", NewRecord(), seconds=1)
    assert await stored.erasure.erase("pump", 0) == 44
    assert on_disk(own_store.folder)
    assert await stored.erasure.rewrite_due(0)
    assert not await stored.erasure.rewrite_due(3600)
    assert await stored.erasure.rewrite()

    async def vector_is_gone() -> bool:
        return not on_disk(own_store.folder)

    await until(vector_is_gone)
    await until(partial(rewrite_is_over, stored, well=True))
    assert not await stored.erasure.rewrite_due(0)
    assert await stored.erasure.rewrite_result() is None
    assert (await stored.get()).learned == 44


async def rewrite_is_over(stored: Stored, *, well: bool) -> bool:
    """Return whether the rewrite is over; it must have ended as `well` says."""
    try:
        result = await stored.erasure.rewrite_result()
    except StoreUnavailable:
        return False  # connections to a killed store fail once
    assert result in (None, well)
    return result is not None


async def start_slow_rewrite(stored: Stored) -> None:
    """Delete a vector that is on disk, and start a slow rewrite."""
    await stored.make()
    await stored.buffer.ingest("pump", MARKER)
    await stored.buffer.ingest("pump", matrix(40, 2))
    lease = await stored.lease()
    await stored.registry.settle(lease, await stored.take(), b"a", NewRecord(), seconds=1)
    await stored.erasure.erase("pump", 0)
    await stored.redis.config_set("rdb-key-save-delay", 500_000)
    assert await stored.erasure.rewrite()
    assert await stored.erasure.rewrite_result() is None


async def assert_erased_later(stored: Stored, folder: Path) -> None:
    """Fail unless a rewrite is still due, and another one removes the vector from the disk."""
    assert on_disk(folder)
    assert await stored.erasure.rewrite_due(0)
    await stored.redis.config_set("rdb-key-save-delay", 0)
    other_worker = Stored(stored.redis)  # so that another worker need not wait
    assert await other_worker.erasure.rewrite()
    await until(partial(rewrite_is_over, other_worker, well=True))
    assert not on_disk(folder)
    assert not await other_worker.erasure.rewrite_due(0)


async def test_after_a_killed_rewrite_another_is_due(own_store, own_redis):
    """After a killed rewrite the vector is on disk, and another rewrite is due."""
    stored = Stored(own_redis)
    await start_slow_rewrite(stored)
    (child,) = psutil.Process(own_store.pid).children()
    child.kill()
    await until(partial(rewrite_is_over, stored, well=False))
    assert not await stored.erasure.rewrite()  # not again at once
    await assert_erased_later(stored, own_store.folder)


async def test_after_a_store_died_in_a_rewrite_another_is_due(own_store, own_redis):
    """A restarted store has no rewrite under way, whatever its counters say."""
    stored = Stored(own_redis)
    await start_slow_rewrite(stored)
    own_store.kill()
    own_store.start()
    await until(partial(rewrite_is_over, stored, well=False))
    await assert_erased_later(stored, own_store.folder)


async def test_a_deletion_during_a_rewrite_waits_for_the_next(own_redis):
    """A deletion during a rewrite waits for the next rewrite, because this one may hold it."""
    stored = Stored(own_redis)
    await start_slow_rewrite(stored)
    await erasure.mark_erased(own_redis)
    assert not await stored.erasure.rewrite()
    await own_redis.config_set("rdb-key-save-delay", 0)
    await until(partial(rewrite_is_over, stored, well=True))
    assert await stored.erasure.rewrite_due(0)


async def test_learned_vectors_are_kept_as_long_as_asked(stored):
    """Learned vectors are kept for the asked time, within the bound, the oldest deleted first."""
    await stored.learn(40)
    await stored.learn(50, seed=1)
    assert await stored.erasure.erase("pump", 3600) == 0
    assert (await stored.get()).kept_bytes == 90 * 12
    assert await stored.erasure.erase("pump", 3600, max_bytes=60 * 12) == 40
    assert await stored.erasure.erase("pump", 3600, max_bytes=60 * 12) == 0
    assert (await stored.get()).kept_bytes == 50 * 12
    assert await stored.erasure.erase("pump", 0) == 50


async def test_vectors_not_learned_yet_are_never_erased(stored, redis):
    """Buffered and parked vectors are never erased."""
    await stored.learn(10 + 30, good=False)
    await stored.learn(40, seed=1)
    await stored.learn(41, good=False, seed=2)
    await stored.buffer.ingest("pump", matrix(42, seed=3))
    assert await stored.erasure.erase("pump", 0) == 40
    assert await stored.erasure.erase("pump", 0) == 0
    assert await redis.xlen(Keys("pump").stream) == 3
    assert await stored.quarantine.decide("pump", "v1", "release") == 40
    assert await stored.quarantine.decide("pump", "v3", "release") == 41


async def test_a_long_range_is_erased_in_pieces(stored, redis, monkeypatch):
    """A call deletes a bounded number of entries, so that other calls do not wait."""
    monkeypatch.setattr(erasure, "ENTRIES_AT_ONCE", 4)
    for seed in range(9):
        await stored.buffer.ingest("pump", matrix(4, seed=seed))
    await stored.learn(4)
    erased = [await stored.erasure.erase("pump", 0) for _ in range(4)]
    assert erased == [16, 16, 8, 0]
    assert await redis.llen(Keys("pump").erasable) == 0
    assert (await stored.get()).kept_bytes == 0


async def test_without_an_append_only_file_nothing_is_rewritten(own_redis):
    """A store without an append-only file reports that nothing was rewritten."""
    await own_redis.config_set("appendonly", "no")
    assert not await Stored(own_redis).erasure.rewrite()
