import asyncio
import hashlib
import random

import msgspec
import pytest

from service.domain.detector import Retrains
from service.domain.version_record import NewRecord
from service.problems import (
    Gone,
    PreconditionFailed,
    StoreUnavailable,
    Unknown,
    UnknownDetector,
    Unprocessable,
)
from service.store.buffer import Buffer
from service.store.lua import Fenced
from service.store.redis_keys import Keys
from tests.service.stored import BAD, GOOD, Stored, bounded, matrix

pytestmark = pytest.mark.anyio


async def test_a_promotion_changes_everything_at_once(stored):
    """Version, artifact, pointer, history, cursor and counters change together."""
    batch = await stored.buffer.ingest("pump", matrix(40))
    lease, experience = await stored.lease(), await stored.take()
    record = msgspec.structs.replace(GOOD, strategy="replay", n_new=40)
    assert await stored.registry.settle(lease, experience, b"one", record, seconds=2) == 1
    detector = await stored.get()
    assert (detector.champion, detector.generation, detector.last_version) == (1, 1, 1)
    counts = (detector.buffered, detector.buffered_bytes, detector.consumed, detector.learned)
    assert counts == (0, 0, 40, 40)
    assert detector.retrains == Retrains(promoted=1)
    assert await stored.registry.artifact("pump", 1) == b"one"
    document = (await stored.registry.record("pump", 1)).to_dict()
    assert document.pop("created_at").endswith("Z")
    assert document == {
        "format": 1, "version": 1, "parent": None, "outcome": "promoted", "state": "champion",
        "who": "worker", "strategy": "replay", "n_new": 40, "gate": {"passed": True, "reasons": []},
        "sha256": hashlib.sha256(b"one").hexdigest(), "bytes": 3, "pruned": False,
        "experience": {
            "first": "0-0", "last": experience.last, "n": 40, "batch_count": 1,
            "batches": [batch.batch_id], "senders": [],
        },
    }  # fmt: skip
    (row,) = await stored.registry.history("pump")
    assert row.at.endswith("Z")
    assert msgspec.to_builtins(row) == {
        "at": row.at,
        "generation": 1, "version": 1, "from": None, "action": "promote", "who": "worker",
        "why": "retraining",
    }  # fmt: skip


async def test_a_promotion_happens_once(stored):
    """The same promotion again is refused by the cursor, even if the lease is valid."""
    await stored.buffer.ingest("pump", matrix(40))
    lease, experience = await stored.lease(), await stored.take()
    await stored.registry.settle(lease, experience, b"one", GOOD, seconds=1)
    with pytest.raises(Fenced):
        await stored.registry.settle(lease, experience, b"one", GOOD, seconds=1)
    with pytest.raises(Fenced):
        await stored.registry.park(lease, experience, "late", seconds=1)
    assert (await stored.get()).last_version == 1


async def test_a_rollback_fences_the_running_retraining(stored):
    """After a rollback, a candidate of the earlier champion is neither promoted nor rejected."""
    await stored.learn()
    await stored.learn(seed=1)
    await stored.buffer.ingest("pump", matrix(40))
    lease, experience = await stored.lease(), await stored.take()
    assert await stored.registry.set_champion("pump", 1) == 3
    with pytest.raises(Fenced, match="champion"):
        await stored.registry.settle(lease, experience, b"three", GOOD, seconds=1)
    with pytest.raises(Fenced, match="champion"):
        await stored.registry.settle(lease, experience, b"three", BAD, seconds=1, promoted=False)
    detector = await stored.get()
    assert (detector.champion, detector.last_version, detector.buffered) == (1, 2, 40)
    next_experience = await stored.take()
    assert next_experience.champion == 1
    assert await stored.registry.settle(lease, next_experience, b"three", GOOD, seconds=1) == 3
    assert (await stored.registry.record("pump", 3)).to_dict()["parent"] == 1


async def test_learned_counts_the_lineage_of_the_champion(stored):
    """After a rollback `learned` is that of the older version."""
    await stored.learn(40)
    await stored.learn(50, seed=1)
    assert (await stored.get()).learned == 90
    await stored.registry.set_champion("pump", 1)
    assert (await stored.get()).learned == 40
    await stored.learn(60, seed=2)
    detector = await stored.get()
    assert (detector.learned, detector.consumed) == (100, 150)


async def test_a_rejection_parks_the_experience(stored):
    """The candidate gets a number, a record and an artifact; later data is learned."""
    await stored.learn(40)
    assert await stored.learn(50, b"two", good=False) == 2
    detector = await stored.get()
    assert (detector.champion, detector.generation, detector.last_version) == (1, 1, 2)
    counts = (detector.buffered, detector.parked, detector.consumed, detector.learned)
    assert counts == (0, 50, 40, 40)
    assert detector.parked_bytes == 50 * 12
    assert detector.last_retraining.outcome == "rejected"
    assert detector.last_retraining.reasons == BAD.reasons
    assert (await stored.registry.record("pump", 2)).to_dict()["state"] == "rejected"
    assert await stored.registry.artifact("pump", 2) == b"two"
    (entry,) = await stored.quarantine.list("pump")
    assert (entry.id, entry.kind, entry.version) == ("v2", "experience", 2)
    assert await stored.learn(60, seed=2) == 3


async def test_promoting_a_rejected_version_consumes_its_experience(stored):
    """The vectors of the version leave the quarantine and count as learned."""
    await stored.learn(40)
    await stored.learn(50, good=False)
    assert await stored.registry.set_champion("pump", 2, who="ann", why="I know better") == 2
    detector = await stored.get()
    counts = (detector.parked, detector.parked_bytes, detector.consumed, detector.learned)
    assert counts == (0, 0, 90, 90)
    assert await stored.quarantine.list("pump") == []
    (_, row) = await stored.registry.history("pump")
    assert (row.who, row.why, row.before) == ("ann", "I know better", 1)
    states = [record.state for record in await stored.registry.records("pump")]
    assert states == ["retired", "champion"]
    assert await stored.registry.set_champion("pump", 1) == 3
    assert (await stored.registry.record("pump", 2)).to_dict()["state"] == "retired"
    assert await stored.registry.set_champion("pump", 2) == 4
    assert (await stored.get()).learned == 90


async def test_promotion_after_a_release_counts_nothing_twice(stored):
    """Vectors that were released before are buffered and are not counted again."""
    await stored.learn(40)
    await stored.learn(50, good=False)
    await stored.quarantine.decide("pump", "v2", "release")
    await stored.registry.set_champion("pump", 2)
    detector = await stored.get()
    counts = (detector.learned, detector.consumed, detector.buffered, detector.parked)
    assert counts == (40, 40, 50, 0)


async def test_stale_unknown_and_pruned_promotions_are_refused(stored):
    """A stale If-Match, an unknown version and a pruned one give three different answers."""
    for seed in range(5):
        await stored.learn(seed=seed)
    with pytest.raises(PreconditionFailed) as caught:
        await stored.registry.set_champion("pump", 4, expected_generation=4)
    assert caught.value.extra == {"generation": 5}
    with pytest.raises(Unknown):
        await stored.registry.set_champion("pump", 6)
    with pytest.raises(UnknownDetector):
        await stored.registry.set_champion("other", 1)
    await stored.registry.prune("pump")
    with pytest.raises(Gone):
        await stored.registry.set_champion("pump", 1)
    assert (await stored.get()).generation == 5
    assert await stored.registry.set_champion("pump", 4, expected_generation=5) == 6


async def test_promoting_the_champion_again_changes_nothing(stored):
    """Promoting the champion again does not change the generation."""
    await stored.learn()
    assert await stored.registry.set_champion("pump", 1) == 1
    assert len(await stored.registry.history("pump")) == 1


async def test_an_imported_version_waits_for_a_person(stored):
    """An import gets the next number and fixes the dimension; it is not champion yet."""
    record = NewRecord(dimension=3, learned=500, who="ann")
    assert await stored.registry.import_version("pump", b"theirs", record) == 1
    detector = await stored.get()
    counts = (detector.champion, detector.last_version, detector.dimension, detector.learned)
    assert counts == (None, 1, 3, 0)
    document = (await stored.registry.record("pump", 1)).to_dict()
    fields = (document["version"], document["outcome"], document["state"])
    assert fields == (1, "imported", "candidate")
    with pytest.raises(Unprocessable, match="3"):
        await stored.registry.import_version("pump", b"other", NewRecord(dimension=4))
    with pytest.raises(UnknownDetector):
        await stored.registry.import_version("other", b"theirs", record)
    assert await stored.registry.set_champion("pump", 1) == 1
    assert (await stored.get()).learned == 500


async def test_pruning_keeps_versions_that_may_still_serve(stored, redis):
    """Champion, parent, the last two champions, pinned, parked and imported ones are kept."""
    for seed in range(6):  # versions 1 to 6
        await stored.learn(seed=seed)
    await stored.learn(good=False)  # 7, parked
    await stored.registry.import_version("pump", b"theirs", NewRecord())  # 8
    await stored.registry.pin("pump", 1)
    assert await stored.registry.prune("pump") == [2, 3, 4]
    assert await stored.registry.artifact("pump", 2) is None
    assert [r.pruned for r in await stored.registry.records("pump")] == (
        [False, True, True, True, False, False, False, False]
    )
    assert len(await redis.keys("*artifact:*")) == 5
    await redis.zadd(Keys("pump").pins, {"1": 1})
    await stored.quarantine.decide("pump", "v7", "discard")
    assert await stored.registry.prune("pump") == [1, 7]
    assert await stored.registry.prune("pump") == []
    await stored.registry.set_champion("pump", 5)
    await stored.learn(seed=9)  # 9, its parent 5
    await stored.learn(seed=10)  # 10, its parent 9
    assert await stored.registry.prune("pump") == [5, 6]
    assert await redis.zrange(Keys("pump").pins, 0, -1) == []


async def test_pruning_keeps_the_anchor(stored):
    """The anchor is kept, because the gate compares every successor with it."""
    for seed in range(5):
        await stored.learn(seed=seed, anchor=1)
    assert await stored.registry.prune("pump") == [2, 3]


async def test_a_pruned_artifact_makes_a_rewrite_due(stored: Stored):
    """With some strategies an artifact holds rows, which must leave the append-only file too."""
    for seed in range(2):
        await stored.learn(seed=seed)
    assert await stored.registry.prune("pump") == []
    assert not await stored.erasure.rewrite_due(0)
    await stored.learn(seed=2)
    assert await stored.registry.prune("pump") == [1]
    assert await stored.erasure.rewrite_due(0)


async def test_equal_artifacts_are_stored_once(stored, redis):
    """Equal artifacts are stored once, and stay until the last version with them is pruned."""
    for seed in range(4):
        await stored.learn(seed=seed, artifact=b"twin" if seed in (0, 3) else None)
    assert len(await redis.keys("*artifact:*")) == 3
    assert await stored.registry.prune("pump") == [1, 2]
    assert await stored.registry.artifact("pump", 4) == b"twin"


async def test_records_are_the_latest_ones_oldest_first(stored):
    """The latest records are listed, oldest first; an unknown number or detector has none."""
    for seed in range(3):
        await stored.learn(seed=seed)
    assert [r.record.version for r in await stored.registry.records("pump", limit=2)] == [2, 3]
    assert await stored.registry.record("pump", 4) is None
    assert await stored.registry.records("other") == []
    assert await stored.registry.history("other") == []


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_a_large_artifact_is_kept_bit_for_bit(stored, extra):
    """A large artifact is written as one argument and read in pieces, bit for bit."""
    artifact = random.Random(0).randbytes(8 * 2**20 + extra)
    await stored.learn(artifact=artifact)
    assert await stored.registry.artifact("pump", 1) == artifact


@pytest.mark.parametrize("seed", range(6))
async def test_every_acknowledged_vector_is_in_exactly_one_place(stored, redis, seed):
    """After any calls in any order every vector is in one place, and numbers have no gaps."""
    dice, ledger = random.Random(seed), Ledger(stored, random.Random(seed))
    for _ in range(80):
        step = dice.choice(
            (ledger.ingest, ledger.ingest, ledger.ingest, ledger.promote, ledger.reject,
             ledger.park, ledger.move_champion, ledger.release, ledger.discard, ledger.erase,
             ledger.late)
        )  # fmt: skip
        await step()
        await ledger.check()


class Ledger:
    """The answers that the client got, to compare with the store."""

    def __init__(self, stored: Stored, dice: random.Random) -> None:
        self.stored, self.dice = stored, dice
        self.small = Buffer(stored.redis, bounded(experience_max_vectors=100))
        self.acknowledged: dict[str, int] = {}
        self.consumed: list[str] = []
        self.discarded: list[str] = []
        self.parked: dict[str, list[str]] = {}

    async def ingest(self) -> None:
        n, key = self.dice.randint(1, 60), self.dice.choice((None, "a", "b", "c", "d"))
        try:
            answer = await self.small.ingest("pump", matrix(n), idempotency_key=key)
        except Unprocessable:
            return
        assert bool(answer.duplicate) == (answer.batch_id in self.acknowledged)
        self.acknowledged[answer.batch_id] = answer.accepted

    async def _retrain(self, step: str) -> None:
        experience = await self.small.take("pump")
        lease = await self.stored.lease()
        await self.stored.retrainings.start(lease)
        ids = list(experience.batch_ids) if experience else []
        if experience is None:
            await self.stored.retrainings.stand_down(lease)
        elif step == "promote":
            await self.stored.registry.settle(
                lease, experience, experience.last.encode(), GOOD, seconds=0
            )
            self.consumed += ids
        elif step == "reject":
            number = await self.stored.registry.settle(
                lease, experience, experience.last.encode(), BAD, seconds=0, promoted=False
            )
            self.parked[f"v{number}"] = ids
        else:
            entry = await self.stored.registry.park(lease, experience, "NaN", seconds=0)
            self.parked[entry] = ids
        await self.stored.leases.release(lease)

    async def promote(self) -> None:
        await self._retrain("promote")

    async def reject(self) -> None:
        await self._retrain("reject")

    async def park(self) -> None:
        await self._retrain("park")

    async def move_champion(self) -> None:
        last = (await self.stored.get()).last_version
        if last:
            number = self.dice.randint(1, last)
            await self.stored.registry.set_champion("pump", number)
            self.consumed += self.parked.pop(f"v{number}", [])

    async def release(self) -> None:
        if self.parked:
            entry, _ = self.parked.popitem()
            await self.stored.quarantine.decide("pump", entry, "release")

    async def discard(self) -> None:
        if self.parked:
            entry, ids = self.parked.popitem()
            await self.stored.quarantine.decide("pump", entry, "discard")
            self.discarded += ids

    async def erase(self) -> None:
        while await self.stored.erasure.erase("pump", 0):
            pass

    async def late(self) -> None:
        """Act like a worker that lost its lease."""
        experience, lease = await self.small.take("pump"), await self.stored.lease()
        await self.stored.leases.release(lease)
        if experience:
            with pytest.raises(Fenced):
                await self.stored.registry.settle(lease, experience, b"late", GOOD, seconds=0)

    async def check(self) -> None:
        detector = await self.stored.get()
        everything = await self.stored.redis.xrange(Keys("pump").stream)
        rows_of_batch = {entry[b"b"].decode(): row for row, entry in everything}
        waiting = await self.stored.buffer.take("pump")
        buffered = list(waiting.batch_ids) if waiting else []
        parked = [batch for ids in self.parked.values() for batch in ids]
        places = [*buffered, *parked, *self.consumed, *self.discarded]
        assert len(everything) == len(rows_of_batch)
        assert sorted(places) == sorted(self.acknowledged)
        assert set(buffered) | set(parked) <= set(rows_of_batch)
        assert not set(self.discarded) & set(rows_of_batch)

        def vectors_of(ids: list[str]) -> int:
            return sum(self.acknowledged[batch] for batch in ids)

        assert (detector.buffered, detector.parked) == (vectors_of(buffered), vectors_of(parked))
        fields = (detector.consumed, detector.discarded)
        assert fields == (vectors_of(self.consumed), vectors_of(self.discarded))
        assert detector.buffered_bytes == 12 * detector.buffered
        assert detector.parked_bytes == 12 * detector.parked
        assert detector.kept_bytes == 12 * vectors_of(
            [b for b in self.consumed if b in rows_of_batch]
        )
        records = [record.to_dict() for record in await self.stored.registry.records("pump")]
        assert [r["version"] for r in records] == list(range(1, detector.last_version + 1))
        history = await self.stored.registry.history("pump")
        assert [row.generation for row in history] == list(range(1, detector.generation + 1))
        assert detector.champion == (history[-1].version if history else None)
        lineage = await self.stored.redis.hget(Keys("pump").learned, str(detector.champion or 0))
        assert detector.learned == int(lineage or 0)


async def test_a_promotion_is_atomic_if_the_store_is_killed(own_store, own_redis):
    """After a kill at any moment the store has all of a promotion or nothing."""
    stored = Stored(own_redis)
    await stored.make()
    for turns in (1, 3, 10, 30, 100, 300):
        await stored.buffer.ingest("pump", matrix(40))
        lease, experience = await stored.lease(), await stored.take()
        before = await stored.get()

        async def promote(lease=lease, experience=experience) -> None:
            await stored.registry.settle(
                lease, experience, experience.last.encode() * 100_000, GOOD, seconds=0
            )

        running = asyncio.ensure_future(promote())
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.to_thread(own_store.kill)
        outcome = (await asyncio.gather(running, return_exceptions=True))[0]
        assert outcome is None or isinstance(outcome, StoreUnavailable)
        own_store.start()
        after = await stored.get()
        moved = after.last_version - before.last_version
        assert moved in (0, 1)
        assert outcome is not None or moved == 1
        assert after.buffered == (0 if moved else before.buffered)
        assert after.generation == before.generation + moved
        assert len(await stored.registry.history("pump")) == after.generation
        assert await stored.leases.release(lease)
