"""The audit trail: its entries, and that changes of it are noticed."""

import copy

import numpy as np
import pytest

from service.domain.audit_chain import WrittenEntry, broken
from service.domain.detector_config import parse
from service.domain.event import Label
from service.problems import Conflict
from service.store import audit_trail
from service.store.labels import LabelStore
from service.store.redis_keys import Keys
from tests.service.store.test_held_rows import verdict
from tests.service.stored import matrix

pytestmark = pytest.mark.anyio


async def trail(stored):
    """Return the whole trail of `pump`."""
    return [entry.to_dict() for entry in await stored.audit.entries("pump")]


def first_broken_entry(entries):
    """Return the number of the first document that does not follow the one before, or None."""
    return broken(map(WrittenEntry.of, entries))


async def test_every_change_is_written(stored):
    """Each entry has who, what, from what to what, and why, in the order of the changes."""
    await stored.learn()
    await stored.learn(good=False)
    await stored.quarantine.decide("pump", "v2", "discard", who="key:ada", why="a test run")
    await stored.detectors.put("pump", parse({"threshold": {"fpr": 0.02}}), who="key:bob")
    await stored.learn(seed=2)
    await stored.registry.set_champion("pump", 1, who="key:bob", why="by hand")
    await stored.buffer.ingest("pump", matrix(4), verdict=verdict(4, held=2))
    (entry,) = await stored.quarantine.list("pump")
    await stored.quarantine.decide("pump", entry.id, "release", who="key:ada")
    changes = [(e["action"], e["who"], e["from"], e["to"]) for e in await trail(stored)]
    assert changes[1:4] == [
        ("promoted", "worker", None, 1),
        ("rejected", "worker", 1, 2),
        ("discard", "key:ada", "parked", "discarded"),
    ]
    action, who, before, after = changes[4]
    assert (action, who) == ("configured", "key:bob")
    assert (before["threshold"], after["threshold"]) == ({"fpr": 0.01}, {"fpr": 0.02})
    assert changes[5:] == [
        ("promoted", "worker", 1, 3),
        ("champion", "key:bob", 3, 1),
        ("release", "key:ada", "quarantined", "buffered"),
    ]
    assert (await trail(stored))[3]["why"] == "a test run"
    assert (await trail(stored))[2]["why"] == "worse on old normals"


async def test_retrainings_by_hand_are_written(stored):
    """A retraining by hand has who, the state and the weights; a refused one has no entry."""
    with pytest.raises(Conflict):
        await stored.detectors.request_retrain("pump", who="key:ada")
    await stored.buffer.ingest("pump", matrix(40))
    await stored.detectors.request_retrain("pump", {"w_prev": 0.5, "w_new": 0.5}, who="key:ada")
    await stored.detectors.request_retrain("pump", who="key:bob")
    changes = [
        (e["action"], e["who"], e["from"], e["to"], e["weights"])
        for e in await trail(stored)
        if e["action"] != "created"
    ]
    assert changes == [
        ("retrain", "key:ada", "idle", "queued", {"w_prev": 0.5, "w_new": 0.5}),
        ("retrain", "key:bob", "queued", "queued", None),
    ]
    assert first_broken_entry(await trail(stored)) is None


async def test_labels_that_set_the_threshold_are_written(stored):
    """Labels have an entry if they set the threshold, with the revisions."""
    labels_of, uid = LabelStore(stored.redis), (await stored.get()).uid
    labels = [Label("anomaly", matrix(1)[0])]
    await labels_of.add("pump", uid, labels, who="key:ada")
    assert [e["action"] for e in await trail(stored)] == ["created"]
    await stored.detectors.put("pump", parse({"threshold": {"labels": {"beta": 1}}}))
    for _ in range(2):
        await labels_of.add("pump", uid, labels, idempotency_key="monday", who="key:ada")
    entry = (await trail(stored))[-1]
    assert (entry["action"], entry["who"], entry["labels"]) == ("labelled", "key:ada", 1)
    assert (entry["seq"], entry["from"], entry["to"]) == (3, 2, 3)
    assert first_broken_entry(await trail(stored)) is None


async def test_unchanged_state_writes_no_entry(stored):
    """Setting the same config or the same champion writes no entry."""
    await stored.learn()
    before = await trail(stored)
    await stored.make()
    await stored.registry.set_champion("pump", 1)
    assert await trail(stored) == before


async def test_a_trail_continues_after_the_deletion_of_its_detector(stored):
    """A trail continues if a detector of the same name is created; alone it expires."""
    await stored.detectors.delete("pump", who="key:ada")
    assert [e["action"] for e in await trail(stored)] == ["created", "deleted"]
    assert await stored.redis.ttl(Keys("pump").audit) > 0
    await stored.make()
    assert [e["seq"] for e in await trail(stored)] == [1, 2, 3]
    assert await stored.redis.ttl(Keys("pump").audit) == -1


async def test_alterations_of_a_trail_are_found(stored):
    """A changed field, a missing entry and two exchanged entries are noticed."""
    for n in range(5):
        await stored.detectors.mute("pump", 60 + n / 3, f"ü {n}", "ada")
    entries = await trail(stored)
    assert first_broken_entry(entries) is None
    assert first_broken_entry(entries[2:]) is None
    changed = copy.deepcopy(entries)
    changed[3]["who"] = "bob"
    assert first_broken_entry(changed) == 4
    assert first_broken_entry(entries[:2] + entries[3:]) == 4
    assert first_broken_entry([*entries[:2], entries[3], entries[2], *entries[4:]]) == 4


async def test_a_trail_is_bounded_and_read_in_pages(stored, monkeypatch):
    """A trail is bounded and read in pages, and the entries that are left verify."""
    monkeypatch.setattr(audit_trail, "PAGE", 2)
    for n in range(6):
        await stored.detectors.mute("pump", 60, str(n), "ada")
    assert [e.seq for e in await stored.audit.entries("pump", after=3)] == [4, 5, 6, 7]
    assert [e.seq for e in await stored.audit.entries("pump", after=1, limit=3)] == [2, 3, 4]
    await stored.redis.xtrim(Keys("pump").audit, maxlen=3, approximate=False)
    assert [e["seq"] for e in await trail(stored)] == [5, 6, 7]
    assert first_broken_entry(await trail(stored)) is None
    assert np.isfinite((await trail(stored))[0]["at"])
