"""The janitor erases learned data from the disk, and prunes only what is not needed."""

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis

from service.domain.admission import NOVEL, AdmissionVerdict
from service.domain.incident import Incident, IncidentDecision, KeptRow
from service.domain.incident_fold import Fold
from service.settings import Settings
from service.store.adapters import Stores
from service.store.connection import connect
from service.store.incidents import FollowedState, Incidents, StepChanges
from service.store.redis_keys import Keys
from service.worker.janitor import Janitor
from tests.service.stored import GOOD, Stored, matrix
from tests.waiting import until

pytestmark = pytest.mark.anyio


def _janitor(redis: Redis, **settings) -> Janitor:
    return Janitor(made := Settings(**settings), Stores(made, redis))


async def test_learned_vectors_are_erased_and_buffered_ones_stay(redis: Redis, stored: Stored):
    """With keep_learned_seconds 0 the stream has only rows that are not learned yet."""
    await stored.learn(40)
    await stored.buffer.ingest("pump", matrix(33, seed=1))
    await _janitor(redis).tick()
    detector = await stored.get()
    assert (detector.kept_bytes, detector.buffered) == (0, 33)
    assert (await stored.take()).n == 33
    assert await redis.xlen(Keys("pump").stream) == 1


async def test_learned_vectors_are_kept_as_long_as_the_config_says(redis: Redis, stored: Stored):
    """Learned vectors stay for the config's time, and can be relearned until then."""
    await stored.make(keep_learned_seconds=3600)
    await stored.learn(40)
    await _janitor(redis).tick()
    assert (await stored.get()).kept_bytes > 0
    await stored.make(keep_learned_seconds=0)
    await _janitor(redis).tick()
    assert (await stored.get()).kept_bytes == 0


async def test_a_learned_vector_leaves_the_data_directory(own_store):
    """A vector's bytes are on disk while it is buffered, and nowhere after the rewrite."""
    redis = await connect(own_store.url)
    stored = Stored(redis)
    await stored.make()
    marker = struct.pack("<3f", 1234.5678, -8765.4321, 31415.926)
    rows = matrix(40)
    rows[7] = np.frombuffer(marker, "<f4")
    await stored.buffer.ingest("pump", rows)
    assert _holds(own_store.folder, marker)
    lease = await stored.lease()
    await stored.retrainings.start(lease)
    await stored.registry.settle(
        lease, await stored.take(), b"artifact", GOOD,
        seconds=1.0,
    )  # fmt: skip
    janitor = _janitor(redis, rewrite_seconds=1.0)

    async def vector_is_gone() -> bool:
        await janitor.tick()
        return not _holds(own_store.folder, marker)

    assert not await vector_is_gone()  # erased from memory, but still in the file
    await until(vector_is_gone)
    assert (await stored.get()).learned == 40
    await redis.aclose()


def _holds(folder: Path, marker: bytes) -> bool:
    """Return whether any file under `folder` contains the bytes."""
    present = False
    for path in folder.rglob("*"):
        try:
            present |= path.is_file() and marker in path.read_bytes()
        except FileNotFoundError:  # the store has just replaced it
            continue
    return present


async def test_old_artifacts_are_pruned_after_a_promotion(redis: Redis, stored: Stored):
    """The champion, its parent and the last k versions are kept."""
    for seed in range(5):
        await stored.learn(seed=seed)
    await _janitor(redis, versions_kept=2).tick()
    numbers = [number for number in range(1, 6) if await stored.registry.artifact("pump", number)]
    assert numbers == [4, 5]


async def test_an_interrupted_release_is_completed(redis: Redis, stored: Stored, monkeypatch):
    """The janitor's next round completes a release that was interrupted."""
    from service.store import quarantine

    monkeypatch.setattr(quarantine, "STEP_ENTRIES", 1)
    for seed in range(3):
        await stored.buffer.ingest("pump", matrix(20, seed=seed))
    await stored.learn(20, good=False, seed=3)
    steps = 0
    script = quarantine._STEP

    async def fail_after_two_steps(*args):
        nonlocal steps
        steps += 1
        if steps > 2:
            raise RuntimeError("killed")
        return await script(*args)

    monkeypatch.setattr(quarantine, "_STEP", fail_after_two_steps)
    (entry,) = await stored.quarantine.list("pump")
    with pytest.raises(RuntimeError):
        await stored.quarantine.decide("pump", entry.id, "release")
    monkeypatch.setattr(quarantine, "_STEP", script)
    assert ((await stored.get()).buffered, (await stored.get()).parked) == (40, 40)
    await _janitor(redis).tick()
    assert ((await stored.get()).buffered, (await stored.get()).parked) == (80, 0)


async def test_novel_rows_are_released_after_their_time(redis: Redis, stored: Stored, monkeypatch):
    """Novel rows are released after the config's time, except those of a confirmed incident.

    The time is the store's: a worker whose clock is a day ahead or behind releases none earlier or
    later.
    """
    verdict = AdmissionVerdict(1, np.zeros(4, bool), np.ones(4, bool), 0, NOVEL, {})
    await stored.make(admission="hold_novel")
    await stored.buffer.ingest("pump", matrix(4), verdict=verdict)
    await _janitor(redis).tick()
    assert (await stored.get()).quarantined == 4
    await stored.make(admission="hold_novel", release_after_seconds=3600)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 86_400)
    await _janitor(redis).tick()
    assert (await stored.get()).quarantined == 4
    monkeypatch.setattr(time, "time", lambda: right() - 86_400)
    await stored.make(admission="hold_novel", release_after_seconds=0.001)
    fault, now = Incident("i1-0", "", 0.0, 1.0, 2.0, 1e-4, 1, 1, 1), right()
    row = KeptRow(f"{round(now * 1000)}-0", now, 2.0, 1e-4, 9.0, b"")
    lease = await stored.leases.acquire("pump", 30.0, role="monitor")
    incidents = Incidents(redis)
    await incidents.save(
        lease, FollowedState("0-0", Fold()), StepChanges(incidents=[(fault, [row])])
    )
    await incidents.decide("pump", fault.id, IncidentDecision("confirmed", "", "", now), None)
    await _janitor(redis).tick()
    assert (await stored.get()).quarantined == 4
    await incidents.decide("pump", fault.id, IncidentDecision(None, "", "", now), None)
    await _janitor(redis).tick()
    assert ((await stored.get()).quarantined, (await stored.get()).buffered) == (0, 4)
