import asyncio
import time

import pytest

from service.store.leases import Lease
from service.store.lua import Fenced
from service.store.redis_keys import WORKERS, Keys
from tests.service.stored import GOOD, Stored, matrix
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_one_of_many_gets_the_lease(stored):
    """One of many gets the lease; the others get none until it is released."""
    leases = await asyncio.gather(*(stored.leases.acquire("pump", 30) for _ in range(20)))
    (winner,) = [lease for lease in leases if lease]
    assert await stored.leases.release(winner)
    again = await stored.lease()
    assert again.token == winner.token + 1
    assert not await stored.leases.release(winner)
    assert await stored.leases.renew(again)


async def test_a_lease_is_for_one_role_of_an_existing_detector(stored):
    """The monitor's lease does not block the worker's; a missing detector has none."""
    assert await stored.leases.acquire("pump", 30, "monitor")
    assert await stored.leases.acquire("pump", 30, "worker")
    assert await stored.leases.acquire("other", 30) is None


async def test_a_lease_ends_by_itself_and_renewing_keeps_it(stored):
    """The clock of this process never counts a lease longer than the store does."""
    lease = await stored.lease(seconds=1)
    renewed = await stored.leases.renew(lease)
    assert renewed.deadline >= lease.deadline
    assert renewed.token == lease.token

    async def lease_is_free() -> bool:
        return await stored.leases.acquire("pump", 30) is not None

    await until(lease_is_free)
    assert renewed.expired
    assert time.monotonic() >= renewed.deadline
    assert await stored.leases.renew(renewed) is None


async def test_a_worker_stopped_past_its_lease_changes_nothing(stored):
    """A worker past its lease changes nothing, whether or not another one took the lease."""
    await stored.buffer.ingest("pump", matrix(40))
    late = await stored.lease(seconds=0.05)
    experience = await stored.take()
    await wait_until_over(stored, late)

    async def assert_every_step_is_refused() -> None:
        with pytest.raises(Fenced):
            await stored.registry.settle(late, experience, b"late", GOOD, seconds=1)
        with pytest.raises(Fenced):
            await stored.registry.park(late, experience, "late", seconds=1)

    await assert_every_step_is_refused()
    fresh = await stored.lease()
    await assert_every_step_is_refused()
    assert (await stored.get()).last_version == 0
    assert await stored.registry.settle(fresh, experience, b"fresh", GOOD, seconds=1) == 1


async def wait_until_over(stored: Stored, lease: Lease) -> None:
    """Wait until the lease is over in the store, a moment after its worker considers it over."""
    key = Keys(lease.name).lease(lease.role)

    async def lease_is_over() -> bool:
        return await stored.redis.get(key) != lease.holder.encode()

    await until(lease_is_over)
    assert lease.expired


async def test_a_lease_on_a_deleted_detector_is_refused_on_the_next(stored):
    """A lease on a deleted detector is refused on the next one, even with the same token."""
    old = await stored.lease()
    await stored.detectors.delete("pump")
    await stored.make()
    new = await stored.lease()
    assert new.token == old.token
    with pytest.raises(Fenced):
        await stored.retrainings.start(old)


async def test_eight_workers_with_short_leases_make_no_version_twice(stored):
    """A worker that lost its lease is refused; numbers and generations have no gaps."""
    total, promoted, refused = 30, [], 0

    async def promote_until_total() -> None:
        nonlocal refused
        while len(promoted) < total:
            lease = await stored.leases.acquire("pump", 0.05)
            experience = lease and await stored.buffer.take("pump")
            if lease is None or experience is None:
                if lease is not None:
                    await stored.buffer.ingest("pump", matrix(1, seed=len(promoted)))
                    await stored.leases.release(lease)
                await asyncio.sleep(0)
                continue
            if refused < 10:
                await wait_until_over(stored, lease)
            artifact = experience.last.encode()
            try:
                number = await stored.registry.settle(lease, experience, artifact, GOOD, seconds=0)
            except Fenced:
                refused += 1
            else:
                promoted.append(number)
                await stored.leases.release(lease)

    await asyncio.gather(*(promote_until_total() for _ in range(8)))
    detector = await stored.get()
    assert refused >= 10
    assert sorted(promoted) == list(range(1, detector.last_version + 1))
    assert detector.generation == detector.last_version
    history = await stored.registry.history("pump")
    assert [row.generation for row in history] == list(range(1, detector.generation + 1))
    records = [record.to_dict() for record in await stored.registry.records("pump")]
    firsts = [record["experience"]["first"] for record in records]
    assert firsts == ["0-0", *(record["experience"]["last"] for record in records[:-1])]


async def test_a_heartbeat_from_the_future_does_not_count(stored):
    """If the store's clock is set back, workers are absent until their next heartbeat."""
    (now, _) = await stored.redis.time()
    await stored.redis.zadd(WORKERS, {"dead": now + 86400, "alive": now + 86400, "new": now})
    assert set(await stored.leases.workers()) == {"new"}
    await stored.leases.beat("alive")
    assert set(await stored.leases.workers()) == {"new", "alive"}
    assert await stored.redis.zscore(WORKERS, "dead") is None


async def test_a_lease_from_before_a_clock_change_ends(stored):
    """A dead worker's lease that would last a day goes to another one, with a new token."""
    lease = await stored.leases.acquire("pump", 5)
    assert await stored.leases.acquire("pump", 5) is None
    await stored.redis.pexpire(Keys("pump").lease("worker"), 86_400_000)
    taken = await stored.leases.acquire("pump", 5)
    assert taken.token > lease.token
    assert await stored.leases.renew(lease) is None


async def test_a_worker_that_stops_is_forgotten_at_once(stored):
    """A worker that leaves in good order is forgotten at once."""
    await stored.leases.beat("a")
    await stored.leases.beat("b")
    beats = await stored.leases.workers()
    assert set(beats) == {"a", "b"}
    assert all(0 <= age < 5 for age in beats.values())
    await stored.leases.leave("a")
    assert set(await stored.leases.workers()) == {"b"}
