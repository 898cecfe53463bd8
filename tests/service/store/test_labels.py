"""Labels are stored, bounded by sender, deleted, and read in equal numbers."""

import msgspec
import numpy as np
import pytest

from service.domain.event import Label, equal_share_of_senders
from service.problems import BufferFull, Unprocessable
from service.store import labels
from service.store.erasure import Erasure
from service.store.labels import LabelStore
from service.store.redis_keys import Keys
from tests.service.stored import Stored, matrix

pytestmark = pytest.mark.anyio


async def test_a_label_has_its_vector_and_event(stored):
    """A label has its vector, and its event if there is one."""
    uid = (await stored.get()).uid
    store, event_id = LabelStore(stored.redis), "1795861140000-0"
    labels = [Label("anomaly", matrix(1, seed=7)[0], event_id, 2.5), Label("normal", matrix(1)[0])]
    assert await store.add("pump", uid, labels, idempotency_key="monday")
    assert await store.add("pump", uid, labels, idempotency_key="monday")
    assert not await store.add("pump", uid, [])
    latest = await store.latest("pump")
    assert [(label.label, label.event) for label in latest] == [
        ("normal", None),
        ("anomaly", event_id),
    ]
    assert np.array_equal(latest[1].vector, matrix(1, seed=7)[0])


async def test_labels_add_a_revision_if_they_set_the_threshold(stored):
    """Under the policy `labels` a call adds one to the config's revision, once for each key."""
    before = await stored.get()
    store = LabelStore(stored.redis)
    label = [Label("anomaly", matrix(1)[0])]
    assert await store.add("pump", before.uid, label)
    assert (await stored.get()).config_revision == before.config_revision
    revision = (await stored.make(threshold={"labels": {"beta": 1}})).config_revision
    assert await store.add("pump", before.uid, label, idempotency_key="monday")
    assert await store.add("pump", before.uid, label, idempotency_key="monday")
    assert (await stored.get()).config_revision == revision + 1


async def test_labels_are_read_in_pages(stored):
    """All labels are read, or as many as asked for, newest first."""
    uid = (await stored.get()).uid
    store = LabelStore(stored.redis)
    assert await store.add("pump", uid, [Label("normal", row) for row in matrix(250)])
    labels = await store.latest("pump")
    assert np.array_equal(np.stack([label.vector for label in labels]), matrix(250)[::-1])
    assert len(await store.latest("pump", limit=101)) == 101
    assert len(await store.latest("pump", limit=100)) == 100


def labels_of(sender: str, n: int = 1, seed: int = 0) -> list[Label]:
    """Return `normal` labels of one sender."""
    return [Label("normal", row, sender=sender) for row in matrix(n, seed=seed)]


async def test_a_sender_evicts_only_its_own_labels(stored: Stored) -> None:
    """A sender keeps a tenth of all labels, its latest; other senders' labels stay."""
    uid = (await stored.get()).uid
    store = LabelStore(stored.redis, labels_kept=100)
    assert await store.add("pump", uid, labels_of("ada", 3))
    for seed in range(5):
        assert await store.add("pump", uid, labels_of("bob", 8, seed))
    labels = await store.all("pump")
    assert [label.sender for label in labels].count("ada") == 3
    of_bob = [label.vector.tolist() for label in labels if label.sender == "bob"]
    assert of_bob == matrix(8, seed=4)[::-1].tolist() + matrix(8, seed=3)[::-1].tolist()[:2]


async def test_a_full_store_refuses_a_new_sender(stored: Stored) -> None:
    """If others' labels fill the store, a new sender is refused and no label is lost."""
    uid = (await stored.get()).uid
    store = LabelStore(stored.redis, labels_kept=20)
    for sender in "abcdefghij":
        assert await store.add("pump", uid, labels_of(sender, 2))
    with pytest.raises(BufferFull):
        await store.add("pump", uid, labels_of("late"))
    assert await store.add("pump", uid, labels_of("a", 1, seed=5))  # its own oldest makes room
    assert len(await store.all("pump")) == 20


async def test_an_idempotency_key_is_for_one_body(stored: Stored) -> None:
    """The same key with another digest is refused; keys of an earlier release still count."""
    uid = (await stored.get()).uid
    store = LabelStore(stored.redis)
    for _ in range(2):
        assert await store.add("pump", uid, labels_of("a"), idempotency_key="k", digest="d1")
    with pytest.raises(Unprocessable):
        await store.add("pump", uid, labels_of("a"), idempotency_key="k", digest="d2")
    await stored.redis.set(Keys("pump").labels_idempotency("old"), uid)
    assert await store.add("pump", uid, labels_of("a"), idempotency_key="old", digest="d3")
    assert len(await store.all("pump")) == 1


async def test_idempotency_keys_are_kept_by_sender(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sender has its own keys; its oldest is dropped first, and all with the detector."""
    monkeypatch.setattr(labels, "MOST_ANSWERS", 3)
    uid = (await stored.get()).uid
    store = LabelStore(stored.redis)
    assert await store.add("pump", uid, labels_of("ann"), idempotency_key="0", digest="d1")
    for number in range(5):
        assert await store.add(
            "pump", uid, labels_of("bob"), idempotency_key=str(number), digest="d2"
        )
    assert len(await stored.redis.keys("*{pump}:idempotency:*")) == 1 + 3
    with pytest.raises(Unprocessable):
        await store.add("pump", uid, labels_of("ann"), idempotency_key="0", digest="d3")
    await stored.detectors.delete("pump")
    assert not await stored.redis.keys("*{pump}:idempotency:*")


async def test_a_deleted_label_waits_for_a_rewrite(stored: Stored) -> None:
    """A deleted label's vector is still in the append-only file, so a rewrite is due."""
    store, erasure = LabelStore(stored.redis), Erasure(stored.redis)
    assert await store.add("pump", (await stored.get()).uid, labels_of("ann"))
    assert not await erasure.rewrite_due(0)
    assert await store.delete("pump", await store.all("pump")) == 1
    assert await erasure.rewrite_due(0)


async def test_labels_of_an_earlier_release_are_read(stored: Stored) -> None:
    """Labels without sender and incident are read."""
    row = matrix(1)[0]
    values = {"label": "normal", "vector": row.tobytes(), "event": None, "at": 1.0}
    await stored.redis.xadd(Keys("pump").labels, {"e": msgspec.msgpack.encode(values)})
    (label,) = await LabelStore(stored.redis).all("pump")
    assert (label.label, label.sender, label.incident) == ("normal", "", None)
    assert await LabelStore(stored.redis).delete("pump", [label]) == 1


async def test_revoking_a_key_deletes_its_labels(stored: Stored) -> None:
    """Revoking a key deletes its labels, and is a change of config if labels decide."""
    uid = (await stored.get()).uid
    store = LabelStore(stored.redis)
    await stored.make(threshold={"labels": {"beta": 1}})
    await store.add("pump", uid, labels_of("ada", 2))
    await store.add("pump", uid, labels_of("bob", 3))
    revision = (await stored.get()).config_revision
    assert await store.sweep("pump", "bob", who="key:root") == 3
    assert {label.sender for label in await store.all("pump")} == {"ada"}
    assert (await stored.get()).config_revision == revision + 1
    assert await store.sweep("pump", "bob") == 0


def test_labels_are_read_in_equal_numbers() -> None:
    """A thousand labels of one sender do not displace another sender's two."""
    labels = [*labels_of("flood", 50), *labels_of("ada", 2)]
    chosen = equal_share_of_senders(labels, 10)
    assert [label.sender for label in chosen].count("ada") == 2
    assert len(chosen) == 10
    assert chosen == [label for label in labels if any(label is other for other in chosen)]
    assert equal_share_of_senders(labels, 100) == labels


async def test_audit_entries_of_one_sender_are_bounded(stored: Stored) -> None:
    """A sender writes at most sixty audit entries an hour; its labels are all kept."""
    uid = (await stored.make(threshold={"labels": {"beta": 1}})).uid
    store, before = LabelStore(stored.redis), len(await stored.audit.entries("pump"))
    for seed in range(70):
        assert await store.add("pump", uid, labels_of("a", seed=seed), who="a")
    assert await store.add("pump", uid, labels_of("b"), who="b")
    trail = (await stored.audit.entries("pump"))[before:]
    assert [entry.who for entry in trail].count("a") in range(60, 71)  # an hour may end between
    assert trail[-1].who == "b"
    assert len(await store.all("pump")) == 71
