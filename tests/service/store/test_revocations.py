"""Revocation: which versions are marked, which one serves, what is discarded or relearned."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from service.domain.provenance import Batches, RevocationTarget
from service.domain.revocation_plan import RevocationRequest, Revoked
from service.domain.version_record import NewRecord
from service.problems import Conflict, Unknown, UnknownDetector
from service.store import revocations
from service.store.lua import HOURLY, Fenced
from service.store.redis_keys import Keys
from tests.service.store.test_held_rows import verdict
from tests.service.stored import GOOD, Stored, matrix

pytestmark = pytest.mark.anyio


async def send(stored, sender: str, n: int = 40, seed: int = 0) -> str:
    """Return the id of a batch of `n` vectors that `sender` sent."""
    return (await stored.buffer.ingest("pump", matrix(n, seed=seed), sender=sender)).batch_id


async def settle(stored, *, good: bool = True) -> int:
    """Promote or reject a version that learned the whole buffer; return its number."""
    lease = await stored.lease()
    await stored.retrainings.start(lease)
    experience = await stored.take()
    artifact = f"after {experience.last}".encode()
    number = await stored.registry.settle(
        lease, experience, artifact, GOOD, seconds=0.5, promoted=good
    )
    await stored.leases.release(lease)
    return number


async def learn_from_two_senders(stored) -> tuple[str, str]:
    """Let version 1 learn from ann, 2 from ann and bob, 3 from ann; then buffer a batch of each.

    Return the ids of bob's batches: the learned one and the buffered one.
    """
    await send(stored, "ann")
    await settle(stored)
    await send(stored, "ann", 50, seed=1)
    learned = await send(stored, "bob", 40, seed=2)
    await settle(stored)
    await send(stored, "ann", 60, seed=3)
    await settle(stored)
    await send(stored, "ann", 7, seed=4)
    return learned, await send(stored, "bob", 5, seed=5)


async def vectors_in_counters(stored) -> int:
    """Return how many vectors the counters account for."""
    detector = await stored.get()
    places = (
        detector.buffered,
        detector.quarantined,
        detector.parked,
        detector.consumed,
        detector.discarded,
    )
    return sum(places)


async def vectors_in_stream(stored) -> int:
    """Return how many vectors the stream holds."""
    rows = await stored.redis.xrange(Keys("pump").stream)
    return sum(int(fields[b"n"]) for _, fields in rows)


BOB = RevocationTarget("key", "bob")


async def test_revoking_a_key_relearns_the_vectors_of_others(stored):
    """The key's versions and later ones are marked, a clean one serves, the rest is relearned."""
    await learn_from_two_senders(stored)
    done = await stored.revocations.revoke(
        "pump", RevocationRequest(BOB, "key:eve", "broken press")
    )
    assert (done.champion, done.generation, done.versions) == (1, 4, (2, 3))
    assert done.discarded == {"buffered": 5, "quarantined": 0, "parked": 0, "kept": 40}
    assert done.relearned.vectors == 110
    assert done.relearned.senders == ("ann",)
    assert done.lost == Batches(vectors=0, batch_count=0, batches=(), senders=())
    detector = await stored.get()
    assert (detector.champion, detector.generation, detector.learned) == (1, 4, 40)
    assert detector.buffered == 7 + 110
    assert detector.buffer_oldest is not None
    assert await vectors_in_counters(stored) == 40 + 90 + 60 + 12
    experience = await stored.take()
    assert experience.senders == ("ann",)
    assert (experience.n, experience.champion) == (117, 1)
    states = [record.state for record in await stored.registry.records("pump")]
    assert states == ["champion", "revoked", "revoked"]
    mark = (await stored.registry.record("pump", 3)).to_dict()["revoked"]
    assert (mark["key"], mark["who"], mark["why"]) == ("bob", "key:eve", "broken press")
    assert (await stored.registry.history("pump"))[-1].why == "revoked key bob"
    entry = (await stored.audit.entries("pump"))[-1].to_dict()
    assert (entry["action"], entry["from"], entry["to"]) == ("revoked", 3, 1)
    assert (entry["who"], entry["key"], entry["versions"]) == ("key:eve", "bob", [2, 3])


async def test_relearned_vectors_are_those_that_were_sent(stored):
    """The same vectors are relearned, in order, after those that were buffered before."""
    await learn_from_two_senders(stored)
    await stored.revocations.revoke("pump", RevocationRequest(BOB))
    expected = [matrix(7, seed=4), matrix(50, seed=1), matrix(60, seed=3)]
    assert np.array_equal((await stored.take()).vectors, np.concatenate(expected))
    assert await settle(stored) == 4
    assert await vectors_in_counters(stored) == 40 + 90 + 60 + 12


async def test_erased_vectors_are_reported_as_lost(stored):
    """Without the vectors nothing is relearned; the answer says what is lost, and from whom."""
    await learn_from_two_senders(stored)
    while await stored.erasure.erase("pump", 0):
        pass
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert (done.lost.vectors, done.lost.batch_count) == (110, 2)
    assert done.lost.senders == ("ann",)
    assert done.relearned.vectors == 0
    assert done.discarded["kept"] == 0
    assert (await stored.get()).buffered == 7
    assert await vectors_in_counters(stored) == 40 + 90 + 60 + 12


async def test_partly_erased_vectors_are_lost_in_part(stored):
    """If only the oldest vectors are gone, each batch is in one of the two lists."""
    await learn_from_two_senders(stored)
    (first,) = (await stored.registry.record("pump", 3)).to_dict()["experience"]["batches"]
    entries = await stored.redis.xrange(Keys("pump").stream)
    await stored.erasure.erase("pump", 0)
    await stored.erasure.erase("pump", 0)
    assert len(await stored.redis.xrange(Keys("pump").stream)) == len(entries) - 3
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert (done.lost.vectors, done.relearned.vectors) == (50, 60)
    assert done.relearned.batches == (first,)
    assert first not in done.lost.batches


async def test_revoking_a_batch_leaves_other_batches(stored):
    """One batch is revoked, learned or not; other batches of its sender stay."""
    learned, waiting = await learn_from_two_senders(stored)
    done = await stored.revocations.revoke(
        "pump", RevocationRequest(RevocationTarget("batch", waiting))
    )
    assert (done.champion, done.generation, done.versions) == (3, 3, ())
    assert done.discarded["buffered"] == 5
    done = await stored.revocations.revoke(
        "pump", RevocationRequest(RevocationTarget("batch", learned))
    )
    assert (done.champion, done.versions) == (1, (2, 3))
    assert (await stored.get()).buffered == 117
    with pytest.raises(Unknown):
        await stored.revocations.revoke(
            "pump", RevocationRequest(RevocationTarget("batch", waiting))
        )


async def test_a_dry_run_changes_no_key(stored):
    """A dry run says what would be done, and changes no key of the store."""

    async def all_keys() -> dict[bytes, bytes]:
        keys = [key async for key in stored.redis.scan_iter()]
        return {key: await stored.redis.dump(key) for key in keys}

    await learn_from_two_senders(stored)
    before = await all_keys()
    foreseen = (await stored.revocations.plan("pump", BOB)).foreseen()
    assert await all_keys() == before
    assert await stored.revocations.revoke("pump", RevocationRequest(BOB)) == replace(
        foreseen, dry_run=False
    )


async def test_a_repeated_revocation_changes_nothing(stored):
    """A repetition makes no new mark and no new generation, and relearns nothing twice."""
    await learn_from_two_senders(stored)
    await stored.revocations.revoke("pump", RevocationRequest(BOB))
    in_stream = await vectors_in_stream(stored)
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert (done.champion, done.generation, done.versions) == (1, 4, (2, 3))
    assert not any(done.discarded.values())
    assert done.lost.vectors == done.relearned.vectors == 0
    assert await vectors_in_stream(stored) == in_stream


@pytest.mark.parametrize("steps", range(8))
async def test_an_interrupted_revocation_is_completed_by_repetition(stored, monkeypatch, steps):
    """After a crash at any step every vector is in one place, and a repeated call completes it."""
    await learn_from_two_senders(stored)
    sweep, left = revocations.SWEEP, steps

    async def cancel_after_steps(*arguments, **keys):
        nonlocal left
        if not left:
            raise asyncio.CancelledError
        left -= 1
        return await sweep(*arguments, **keys)

    monkeypatch.setattr(revocations, "STEP_ENTRIES", 1)
    monkeypatch.setattr(revocations, "SWEEP", cancel_after_steps)
    with pytest.raises(asyncio.CancelledError):
        await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert await vectors_in_counters(stored) == 40 + 90 + 60 + 12
    monkeypatch.setattr(revocations, "SWEEP", sweep)
    await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert await vectors_in_counters(stored) == 40 + 90 + 60 + 12
    detector = await stored.get()
    assert (detector.buffered, detector.discarded, detector.generation) == (117, 5, 4)
    assert await vectors_in_stream(stored) == 117 + 40


async def test_rows_held_back_and_parked_are_discarded_too(stored):
    """Held and parked rows of the sender are discarded; those of others stay."""
    for sender, n in (("ann", 50), ("bob", 60)):
        await send(stored, sender, n)
    assert await settle(stored, good=False) == 1
    await send(stored, "bob", 40)
    assert await settle(stored, good=False) == 2
    for sender in ("ann", "bob"):
        await stored.buffer.ingest("pump", matrix(9), sender=sender, verdict=verdict(9, held=3))
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert done.discarded == {"buffered": 6, "quarantined": 3, "parked": 100, "kept": 0}
    assert (done.champion, done.versions) == (None, (1, 2))
    waiting = {entry.id[0]: entry.vectors for entry in await stored.quarantine.list("pump")}
    assert waiting == {"v": 50, "r": 3}
    detector = await stored.get()
    counts = (detector.buffered, detector.quarantined, detector.parked, detector.discarded)
    assert counts == (6, 3, 50, 109)
    assert await stored.quarantine.decide("pump", "v1", "release") == 50
    assert await vectors_in_stream(stored) == 56
    with pytest.raises(Conflict):
        await stored.registry.set_champion("pump", 1)


async def test_a_parked_range_is_not_relearned_twice(stored):
    """A rejected version was promoted by hand: what it consumed is relearned once."""
    await send(stored, "ann")
    await settle(stored)
    for sender in ("ann", "bob"):
        await send(stored, sender)
    assert await settle(stored, good=False) == 2
    await stored.registry.set_champion("pump", 2)
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert (done.champion, done.relearned.vectors) == (1, 40)
    assert await vectors_in_counters(stored) == 120
    assert await vectors_in_stream(stored) == 40 + 40


async def test_a_revocation_keeps_a_clean_champion(stored):
    """After a rollback the clean champion stays, and what later versions learned is relearned."""
    await learn_from_two_senders(stored)
    await stored.registry.set_champion("pump", 1)
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert (done.champion, done.generation, done.versions) == (1, 4, (2, 3))
    assert done.relearned.vectors == 110
    with pytest.raises(Conflict):
        await stored.registry.set_champion("pump", 3)


async def test_without_a_clean_version_none_serves(stored):
    """On request no version serves, and the kept data of others is learned from scratch."""
    for sender in ("bob", "ann"):
        await send(stored, sender)
    await settle(stored)
    with pytest.raises(Conflict, match="without_champion"):
        await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert (await stored.get()).champion == 1
    assert (await stored.registry.record("pump", 1)).to_dict()["state"] == "champion"
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB, unserved=True))
    assert (done.champion, done.generation, done.versions) == (None, 2, (1,))
    detector = await stored.get()
    assert (detector.champion, detector.learned, detector.buffered) == (None, 0, 40)
    assert (await stored.registry.history("pump"))[-1].version is None
    assert (await stored.take()).champion is None
    assert await settle(stored) == 2
    assert (await stored.registry.record("pump", 2)).to_dict()["parent"] is None
    assert (await stored.get()).generation == 3


async def test_a_training_with_revoked_data_is_not_promoted(stored):
    """A worker that took the experience before the revocation cannot promote it."""
    await learn_from_two_senders(stored)
    await send(stored, "ann")
    lease = await stored.lease()
    await stored.retrainings.start(lease)
    experience = await stored.take()
    await stored.revocations.revoke("pump", RevocationRequest(BOB))
    with pytest.raises(Fenced):
        await stored.registry.settle(lease, experience, b"late", GOOD, seconds=1)
    assert (await stored.get()).retraining.state == "running"  # for the next worker


async def test_a_run_left_with_too_few_vectors_ends(stored):
    """If too few vectors are left for a training, the run ends without an outcome."""
    for sender in ("ann", "bob"):
        await send(stored, sender, 20)
    await stored.detectors.request_retrain("pump")
    await stored.revocations.revoke("pump", RevocationRequest(BOB))
    detector = await stored.get()
    assert (detector.retraining.state, detector.requested, detector.served) == ("idle", 1, 1)


async def test_of_two_concurrent_revocations_one_waits_or_fails(stored):
    """Of two concurrent revocations one succeeds; the other is refused, or succeeds after it."""
    await learn_from_two_senders(stored)
    calls = [stored.revocations.revoke("pump", RevocationRequest(BOB)) for _ in range(2)]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, Revoked | Conflict) for outcome in done)
    await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert await vectors_in_counters(stored) == 40 + 90 + 60 + 12
    assert await vectors_in_stream(stored) == 117 + 40


async def test_artifacts_of_revoked_versions_are_deleted(stored):
    """Revoked versions are pruned, and do not count among the kept ones."""
    await learn_from_two_senders(stored)
    await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert await stored.registry.prune("pump") == [2, 3]


async def test_imported_copies_of_revoked_versions_are_found(stored):
    """Copies of a revoked version and versions trained on top of it are found by their hashes."""
    await learn_from_two_senders(stored)
    of_two = (await stored.registry.record("pump", 2)).to_dict()["sha256"]
    artifact = await stored.registry.artifact("pump", 3)
    assert await stored.registry.import_version("pump", artifact, NewRecord()) == 4
    record = NewRecord(parent_sha256=of_two)
    assert await stored.registry.import_version("pump", b"elsewhere", record) == 5
    assert await stored.registry.import_version("pump", b"another", NewRecord()) == 6
    done = await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert done.versions == (2, 3, 4, 5)


async def test_unknown_targets_are_refused(stored):
    """An unknown detector, an unknown batch, and a key that sent nothing are refused."""
    with pytest.raises(UnknownDetector):
        await stored.revocations.revoke("other", RevocationRequest(BOB))
    with pytest.raises(Unknown):
        await stored.revocations.revoke("pump", RevocationRequest(BOB))
    assert await stored.lease()  # and nobody is locked out


async def test_every_batch_of_a_large_experience_is_found(stored):
    """A record names the first thousand batches; the last one is found as well."""
    await send(stored, "ann")
    await settle(stored)
    ids = [await send(stored, "ann", 1, seed=n) for n in range(1100)]
    await settle(stored)
    record = (await stored.registry.record("pump", 2)).to_dict()
    assert ids[-1] not in record["experience"]["batches"]
    foreseen = (
        await stored.revocations.plan("pump", RevocationTarget("batch", ids[-1]))
    ).foreseen()
    assert (foreseen.versions, foreseen.champion) == ((2,), 1)
    assert foreseen.relearned.batch_count == 1099


async def test_a_withdrawn_decision_takes_no_version_back(stored: Stored) -> None:
    """If a version that learned the rows is promoted just before, it keeps serving."""
    await send(stored, "ann")
    await settle(stored)
    batch = await send(stored, "bob", seed=1)
    champion = await settle(stored)
    revocation = RevocationRequest(RevocationTarget("batch", batch), "bob", decision=True)
    with pytest.raises(Conflict):
        await stored.revocations.revoke("pump", revocation)
    assert (await stored.get()).champion == champion


async def test_withdrawn_decisions_are_bounded_in_the_audit_trail(stored: Stored) -> None:
    """Beyond a sender's entries of an hour a decision is taken back without an entry."""
    (seconds, _), who = await stored.redis.time(), "key:bob"
    for n in (HOURLY - 1, HOURLY):
        batch = (await stored.buffer.ingest("pump", matrix(4, seed=n), sender="bob")).batch_id
        await stored.redis.hset(Keys("pump").hourly, who, f"{seconds // 3600} {n}")
        revocation = RevocationRequest(RevocationTarget("batch", batch), who, decision=True)
        assert (await stored.revocations.revoke("pump", revocation)).discarded["buffered"] == 4
    entries = await stored.redis.xrange(Keys("pump").audit)
    assert sum(b"revoked" in b"".join(entry.values()) for _, entry in entries) == 1
