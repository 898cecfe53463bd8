"""Rows that are held back: stored, listed, decided."""

import asyncio

import numpy as np
import pytest

from service.domain.admission import AdmissionVerdict
from service.problems import BufferFull, Unknown, Unprocessable
from service.store.buffer import Buffer, SenderShareExceeded
from tests.service.stored import bounded, matrix

pytestmark = pytest.mark.anyio


def verdict(n, held=0, novel=0, thinned=0):
    """Return a verdict on n rows: the first `held` wait, the last `thinned` are not stored."""
    held_rows, stored_rows = np.zeros(n, bool), np.ones(n, bool)
    held_rows[:held] = True
    stored_rows[:held] = False
    stored_rows[n - thinned :] = False
    shares = {"known": 1 - held / n, "novel": 0.0, "suspicious": held / n}
    return AdmissionVerdict(1, stored_rows, held_rows, novel, "they stand alone", shares)


async def send(stored, X, key=None, **shares):
    """Ingest X with this verdict."""
    return await stored.buffer.ingest(
        "pump", X, idempotency_key=key, verdict=verdict(len(X), **shares)
    )


async def test_every_row_is_in_one_place(stored):
    """Accepted rows are buffered, held rows are quarantined, thinned rows are counted."""
    X = matrix(20)
    answer = await send(stored, X, held=3, thinned=5)
    assert (answer.accepted, answer.quarantined, answer.buffered) == (12, 3, 12)
    assert answer.triage == {"known": 0.85, "novel": 0.0, "suspicious": 0.15, "thinned": 5}
    detector = await stored.get()
    assert (detector.buffered, detector.quarantined, detector.thinned) == (12, 3, 5)
    assert np.array_equal((await stored.take()).vectors, X[3:15])
    (entry,) = await stored.quarantine.list("pump")
    assert (entry.kind, entry.vectors, entry.batch_id) == ("rows", 3, answer.batch_id)
    assert entry.reason == "they stand alone"
    assert np.array_equal(await stored.quarantine.vectors("pump", entry.id), X[:3])


async def test_all_rows_of_a_batch_can_be_held_back(stored):
    """If all rows of a batch wait, nothing is buffered, and the dimension is fixed."""
    answer = await send(stored, matrix(4), held=4)
    assert (answer.accepted, answer.quarantined, answer.buffered) == (0, 4, 0)
    assert await stored.buffer.take("pump") is None
    assert (await stored.get()).dimension == 3


async def test_a_repeated_batch_gets_the_first_answer(stored):
    """A repeated batch gets the first answer, even if it would be judged differently now."""
    X = matrix(20)
    first = await send(stored, X, key="k", held=3)
    repeated = await send(stored, X, key="k", held=9, thinned=2)
    assert repeated.duplicate == 20
    assert (repeated.batch_id, repeated.accepted, repeated.quarantined) == (first.batch_id, 17, 3)
    assert repeated.triage == first.triage
    assert ((await stored.get()).buffered, (await stored.get()).quarantined) == (17, 3)
    with pytest.raises(Unprocessable):
        await send(stored, matrix(20, seed=1), key="k")


async def test_a_full_quarantine_refuses_batches_with_held_rows(stored, redis):
    """A full quarantine refuses batches with held rows, and accepts batches without."""
    stored.buffer = Buffer(redis, bounded(quarantine_max_vectors=5))
    await send(stored, matrix(20), held=4)
    with pytest.raises(BufferFull):
        await send(stored, matrix(20), held=2)
    await send(stored, matrix(20))
    detector = await stored.get()
    assert (detector.buffered, detector.quarantined) == (36, 4)


@pytest.mark.parametrize(("decision", "buffered"), [("release", 20), ("discard", 17)])
async def test_of_two_decisions_at_once_one_fails(stored, decision, buffered):
    """Of two concurrent decisions, one fails because the entry is gone."""
    await send(stored, matrix(20), held=3)
    (entry,) = await stored.quarantine.list("pump")
    decide = stored.quarantine.decide
    outcomes = await asyncio.gather(
        *(decide("pump", entry.id, decision, who="ada") for _ in range(2)),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes} == {Unknown, int}
    detector = await stored.get()
    assert (detector.buffered, detector.quarantined) == (buffered, 0)
    assert detector.discarded == 20 - buffered
    assert await stored.quarantine.list("pump") == []


async def test_released_rows_are_learned(stored):
    """Released rows are buffered after earlier ones, bit for bit."""
    X = matrix(20)
    await send(stored, X, held=3)
    (entry,) = await stored.quarantine.list("pump")
    await stored.quarantine.decide("pump", entry.id, "release")
    assert np.array_equal((await stored.take()).vectors, np.concatenate([X[3:], X[:3]]))


async def test_the_newest_buffered_and_held_rows_are_read(stored):
    """The newest buffered and held rows come in their shares, without consumed rows."""
    await stored.learn()
    for seed in range(5):
        await send(stored, matrix(10, seed=seed), held=2)
    near = await stored.quarantine._held.newest("pump", 3, 25)
    assert near.shape == (25, 3)
    last = {row.tobytes() for seed in (3, 4) for row in matrix(10, seed=seed)}
    assert last <= {row.tobytes() for row in near}
    everything = await stored.quarantine._held.newest("pump", 3, 1000)
    assert len(everything) == 50


async def test_one_sender_cannot_fill_the_buffer_with_novelty(stored):
    """Novel rows of one of several senders are at most half of the buffer."""

    async def send_novel(n, sender, novelty):
        await stored.buffer.ingest(
            "pump", matrix(n), sender=sender, verdict=verdict(n, novel=novelty)
        )

    await send_novel(40, "a", 40)
    await send_novel(40, "b", 0)
    with pytest.raises(SenderShareExceeded):
        await send_novel(40, "a", 21)
    await send_novel(40, "a", 20)
    with pytest.raises(SenderShareExceeded):
        await send_novel(1, "a", 1)
    await send_novel(40, "b", 40)
    assert (await stored.get()).buffered == 160


async def test_one_sender_cannot_fill_the_quarantine(stored, redis):
    """One of several senders has at most half of the quarantine; discards make room."""
    stored.buffer = Buffer(redis, bounded(quarantine_max_vectors=10))

    async def send_held(sender, rows):
        batch = verdict(rows + 1, held=rows)
        await stored.buffer.ingest("pump", matrix(rows + 1), sender=sender, verdict=batch)

    await send_held("a", 3)
    await send_held("b", 1)
    with pytest.raises(BufferFull, match="3 vectors of this key wait in quarantine"):
        await send_held("a", 3)
    await send_held("a", 2)
    await send_held("b", 4)
    (first, *_) = await stored.quarantine.list("pump")
    await stored.quarantine.decide("pump", first.id, "discard")
    await send_held("a", 3)
    assert (await stored.get()).quarantined == 10
