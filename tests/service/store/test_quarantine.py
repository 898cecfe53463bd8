import asyncio

import numpy as np
import pytest

from service.problems import Conflict, Unknown
from service.store import quarantine
from service.store.redis_keys import Keys
from tests.service.stored import matrix

pytestmark = pytest.mark.anyio


async def park(stored, batches: int = 3) -> None:
    """Have version 2 rejected, with `batches` batches of 20 vectors."""
    await stored.learn()
    for seed in range(batches - 1):
        await stored.buffer.ingest("pump", matrix(20, seed=seed))
    await stored.learn(20, good=False, seed=batches - 1)


async def test_released_vectors_are_buffered_again(stored):
    """Released vectors are buffered after later ones, bit for bit, under their batch ids."""
    await park(stored)
    await stored.buffer.ingest("pump", matrix(5, seed=9))
    assert await stored.quarantine.decide("pump", "v2", "release") == 60
    detector = await stored.get()
    assert (detector.buffered, detector.parked) == (65, 0)
    expected = [matrix(5, seed=9), *(matrix(20, seed=seed) for seed in range(3))]
    assert np.array_equal((await stored.take()).vectors, np.concatenate(expected))
    assert await stored.quarantine.list("pump") == []
    assert detector.buffer_oldest is not None


async def test_discarded_vectors_are_gone(stored):
    """Discarded vectors are counted, and wait for the rewrite of the append-only file."""
    await park(stored)
    assert await stored.quarantine.decide("pump", "v2", "discard") == 60
    detector = await stored.get()
    assert (detector.buffered, detector.parked, detector.discarded) == (0, 0, 60)
    assert await stored.erasure.rewrite_due(0)


async def test_unknown_and_decided_entries_are_404(stored):
    """An unknown entry is 404, and so is one that was decided."""
    for entry in ("v9", "", "x0-0"):
        with pytest.raises(Unknown):
            await stored.quarantine.decide("pump", entry, "release")


@pytest.mark.parametrize("decision", ["release", "discard"])
async def test_an_interrupted_decision_is_completed(stored, monkeypatch, decision):
    """After every step each vector is in one place; the other decision comes too late."""
    await park(stored)
    monkeypatch.setattr(quarantine, "STEP_ENTRIES", 1)
    keys = stored.quarantine
    original, steps = quarantine._STEP, 0

    async def crash_after_one(*args):
        nonlocal steps
        steps += 1
        if steps > 1:
            raise ConnectionResetError
        return await original(*args)

    monkeypatch.setattr(quarantine, "_STEP", crash_after_one)
    with pytest.raises(ConnectionResetError):
        await keys.decide("pump", "v2", decision)
    monkeypatch.setattr(quarantine, "_STEP", original)
    detector = await stored.get()
    assert (detector.parked, detector.buffered + detector.discarded) == (40, 20)
    (entry,) = await keys.list("pump")
    assert (entry.vectors, entry.decision) == (40, decision)
    with pytest.raises(Conflict):
        await keys.decide("pump", "v2", "discard" if decision == "release" else "release")
    assert await keys.resume("pump") == 40
    detector = await stored.get()
    assert (detector.parked, detector.buffered + detector.discarded) == (0, 60)


async def test_promotion_leaves_vectors_that_are_being_released(stored, monkeypatch):
    """A promotion by hand leaves the vectors to a release that has begun."""
    await park(stored)
    await stored.redis.hset(
        Keys("pump").parked,
        "v2",
        (await stored.redis.hget(Keys("pump").parked, "v2"))[:-1] + b',"decision":"release"}',
    )
    await stored.registry.set_champion("pump", 2)
    detector = await stored.get()
    assert (detector.parked, detector.consumed) == (60, 40)
    assert await stored.quarantine.resume("pump") == 60


async def test_two_decisions_at_once_move_every_vector_once(stored, monkeypatch):
    """If two people decide at once, every vector moves once."""
    await park(stored, batches=10)
    monkeypatch.setattr(quarantine, "STEP_ENTRIES", 2)
    outcomes = await asyncio.gather(
        *(stored.quarantine.decide("pump", "v2", "release") for _ in range(2)),
        return_exceptions=True,
    )
    assert sum(moved for moved in outcomes if isinstance(moved, int)) == 200
    assert (await stored.get()).buffered == 200
