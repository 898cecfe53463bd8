"""The checker finds each violation: a rule that is switched off, or a wrong answer.

The tests switch rules off in the store's scripts, in their own process, and run these scripts on a
real store. Then the checker reads that store.
"""

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import pytest

from service.domain.provenance import RevocationTarget
from service.domain.revocation_plan import RevocationRequest
from service.store import buffer, held_rows, registry, revocations
from service.store.lua import Fenced
from service.store.redis_keys import Keys
from service.store.script import NamedScript
from tests.faults import checker, stores
from tests.faults.checker import violations
from tests.faults.load import Ack, ClientRecords, Scored, batch, probe
from tests.faults.stage import CONFIG, Stage, staged
from tests.faults.wire import Answer
from tests.service.store.test_held_rows import verdict
from tests.service.stored import GOOD, Stored
from tests.service.trained import versions

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Set up a stage without processes: the test does their work itself."""
    async with staged(apis=0) as stage:
        stored = Stored(stage.redis)
        await stored.make(**CONFIG)
        yield stage


async def ingest(
    stage: Stage, records: ClientRecords, number: int, *, sent: str | None = None, **options
) -> None:
    """Send batch `number` as a client does, and record the answer."""
    rows = batch(number, 40)
    key = sent or f"batch-{number}"
    answer = await Stored(stage.redis).buffer.ingest("pump", rows, idempotency_key=key, **options)
    records.acknowledged[answer.batch_id] = Ack(key, rows, answer.quarantined)


async def promote(stage: Stage, *, lease=None, experience=None) -> None:
    """Promote a version that learned all buffered vectors."""
    stored = Stored(stage.redis)
    lease = lease or await stored.lease()
    experience = experience or await stored.take()
    artifact = versions()[0].to_bytes()
    await stored.registry.settle(lease, experience, artifact, GOOD, seconds=0.1)
    await stored.leases.release(lease)


async def violations_text(stage: Stage, records: ClientRecords) -> str:
    """Return all violations, one a line."""
    return "\n".join(await violations(stage, records))


def without(monkeypatch, module, name: str, *rules: tuple[str, str]) -> None:
    """Replace rules of a script, so that they no longer hold."""
    script = getattr(module, name)
    source = script.source
    for rule, replacement in rules:
        assert rule in source, rule
        source = source.replace(rule, replacement)
    monkeypatch.setattr(module, name, NamedScript(source, **script.names))


async def test_the_checker_finds_nothing_without_a_fault(stage):
    """Without a fault there is no violation."""
    records = ClientRecords()
    for number in range(3):
        await ingest(stage, records, number)
        await promote(stage)
    await ingest(stage, records, 3)
    await ingest(stage, records, 3)
    assert await violations(stage, records) == []


async def test_the_checker_finds_a_batch_stored_twice(stage, monkeypatch):
    """Without deduplication a repeated batch is stored twice, and the checker reports it."""
    without(monkeypatch, buffer, "INGEST", ("if first[ANSWER.uid] == uid then", "if false then"))
    records = ClientRecords()
    await ingest(stage, records, 1, sent="once")
    await ingest(stage, records, 1, sent="once")
    assert "once is stored as 2 batches" in await violations_text(stage, records)


async def test_the_checker_finds_a_lost_batch(stage):
    """A lost batch is named, and so is the counter that disagrees."""
    records = ClientRecords()
    await ingest(stage, records, 1)
    await ingest(stage, records, 2)
    entries = await stage.redis.xrange(Keys("pump").stream)
    await stage.redis.xdel(Keys("pump").stream, entries[0][0])
    text = await violations_text(stage, records)
    assert "is in no place" in text
    assert "buffered is 80, and 40 are there" in text


async def test_the_checker_finds_changed_vectors(stage):
    """Stored rows that differ from those that were sent are a violation."""
    records = ClientRecords()
    await ingest(stage, records, 1)
    ((batch_id, ack),) = records.acknowledged.items()
    records.acknowledged[batch_id] = ack._replace(sent=batch(2, 40))
    assert "not what was sent" in await violations_text(stage, records)


async def quarantined_id(stage: Stage) -> str:
    """Return the id of the only entry in the quarantine."""
    (entry,) = await Stored(stage.redis).quarantine.list("pump")
    return entry.id


async def test_the_checker_accepts_rows_that_are_held_back(stage):
    """Rows that are quarantined, released, learned, or discarded by a person are no violation."""
    records, stored = ClientRecords(), Stored(stage.redis)
    for number, end in enumerate(("release", "discard", None)):
        await ingest(stage, records, number, verdict=verdict(40, held=4))
        if end:
            await stored.quarantine.decide("pump", await quarantined_id(stage), end)
    records.discarded.append((list(records.acknowledged)[1], 4))
    assert await violations(stage, records) == []
    await promote(stage)
    assert await violations(stage, records) == []
    records.discarded.clear()
    assert any(
        "is in ['consumed by version 1']" in violation
        for violation in await violations(stage, records)
    )


async def test_the_checker_finds_lost_rows_of_the_quarantine(stage):
    """Rows missing from the quarantine are a violation, though the batch's other rows are there."""
    records = ClientRecords()
    await ingest(stage, records, 1, verdict=verdict(40, held=4))
    await stage.redis.delete(Keys("pump").held)
    text = await violations_text(stage, records)
    assert "is in ['buffered']" in text
    assert "quarantined is 4, and 0 are there" in text


async def test_the_checker_finds_rows_released_twice(stage, monkeypatch):
    """Without the deletion a released entry is in two places, and the checker reports it."""
    rule = ("redis.call('XDEL', KEYS.held, entry[1])", "")
    without(monkeypatch, held_rows, "_DECIDE", rule)
    records, stored = ClientRecords(), Stored(stage.redis)
    await ingest(stage, records, 1, verdict=verdict(40, held=4))
    await stored.quarantine.decide("pump", await quarantined_id(stage), "release")
    text = await violations_text(stage, records)
    assert "['buffered', 'buffered', 'quarantined']" in text
    assert "not what was sent" in text


async def test_the_checker_finds_rows_in_two_places_or_in_none(stage):
    """A row that is both buffered and held back is a violation, and so is a row that is nowhere."""
    records = ClientRecords()
    await ingest(stage, records, 1, verdict=verdict(40, held=4))
    ((entry, fields),) = await stage.redis.xrange(Keys("pump").held)
    await stage.redis.delete(Keys("pump").held)
    fields[b"x"] = batch(1, 40)[4:8].tobytes()
    await stage.redis.xadd(Keys("pump").held, fields, entry)
    assert "not what was sent" in await violations_text(stage, records)


async def test_the_checker_counts_a_relearned_batch_once(stage, monkeypatch):
    """A relearned batch counts once; a batch that is buffered again twice is a violation."""
    records, stored = ClientRecords(), Stored(stage.redis)
    await ingest(stage, records, 0)
    await promote(stage)
    for number, sender in ((1, "ann"), (2, "bob")):
        await ingest(stage, records, number, sender=sender)
    await promote(stage)
    await stored.revocations.revoke("pump", RevocationRequest(RevocationTarget("key", "bob")))
    assert await violations(stage, records) == []
    await promote(stage)
    assert await violations(stage, records) == []
    add = "redis.call('XADD', entries, '*', unpack(entry[2]))"
    without(monkeypatch, revocations, "SWEEP", (add, f"{add} {add}"))
    (batch_id,) = [b for b, ack in records.acknowledged.items() if ack.key == "batch-1"]
    target = RevocationRequest(
        RevocationTarget("batch", next(iter(records.acknowledged))), unserved=True
    )
    await stored.revocations.revoke("pump", target)
    text = await violations_text(stage, records)
    assert f"batch {batch_id} (40 vectors) is in ['buffered', 'buffered'" in text


async def test_the_checker_finds_a_stale_promotion(stage, monkeypatch):
    """Without fencing a late worker promotes an experience that another worker has learned."""
    as_taken = ("if stored[STATE.cursor] ~= ARGS.cursor then", "if false then")
    moved = ("if stored[STATE.generation] ~= ARGS.generation", "if false")
    nonce = ("or (stored[STATE.champion_nonce] or '') ~= ARGS.champion_nonce then", "then")
    fence = ("if redis.call('GET', KEYS.lease) ~= ARGS.holder then", "if false then")
    without(monkeypatch, registry, "SETTLE", as_taken, moved, nonce, fence)
    records, stored = ClientRecords(), Stored(stage.redis)
    await ingest(stage, records, 1)
    late, experience = await stored.lease(), await stored.take()
    await stored.leases.release(late)
    await promote(stage)
    await promote(stage, lease=late, experience=experience)
    text = await violations_text(stage, records)
    assert "['consumed by version 1', 'consumed by version 2']" in text


async def test_fencing_refuses_that_promotion(stage):
    """With fencing the same promotion is refused, and there is no violation."""
    records, stored = ClientRecords(), Stored(stage.redis)
    await ingest(stage, records, 1)
    late, experience = await stored.lease(), await stored.take()
    await stored.leases.release(late)
    await promote(stage)
    with pytest.raises(Fenced):
        await promote(stage, lease=late, experience=experience)
    assert await violations(stage, records) == []


async def test_the_checker_finds_a_cursor_that_did_not_move(stage, monkeypatch):
    """Without the cursor rule a learned batch stays in the buffer, and the checker reports it."""
    rule = ("redis.call('HSET', state, STATE.cursor, ARGS.last)", "")
    without(monkeypatch, registry, "SETTLE", rule)
    records = ClientRecords()
    await ingest(stage, records, 1)
    await promote(stage)
    text = await violations_text(stage, records)
    assert "'buffered', 'consumed by version 1'" in text
    assert "I2: the cursor" in text


async def test_the_checker_finds_gaps_in_versions_and_generations(stage):
    """A version without a record is a violation, and so is a generation without a row."""
    records = ClientRecords()
    for number in range(3):
        await ingest(stage, records, number)
        await promote(stage)
    await stage.redis.hdel(Keys("pump").versions, "2")
    await stage.redis.ltrim(Keys("pump").history, 1, -1)
    text = await violations_text(stage, records)
    assert "I2: versions [1, 3]" in text
    assert "I2: generations [2, 3]" in text


async def test_the_checker_finds_a_damaged_artifact(stage):
    """One wrong bit in the champion's artifact is a violation."""
    records = ClientRecords()
    await ingest(stage, records, 1)
    await promote(stage)
    digest = (await stage.redis.hget(Keys("pump").artifacts, "1")).decode()
    await stage.redis.setrange(Keys("pump").artifact(digest), 500, b"\x01")
    assert any(violation.startswith("I3") for violation in await violations(stage, records))


async def test_the_checker_finds_wrong_answers(stage):
    """An answer with a wrong version, an older generation or a wrong score is a violation."""
    records = ClientRecords()
    await ingest(stage, records, 1)
    await promote(stage)
    await ingest(stage, records, 2)
    await promote(stage)
    right = float(versions()[0].score(probe())[5])
    records.scored = [
        Scored(1, 2, 2, 5, right, 0.0),
        Scored(1, 1, 1, 5, right, 0.0),
        Scored(2, 7, 2, 5, right, 0.0),
        Scored(3, 1, 1, 5, right + 0.01, 0.0),
    ]
    text = await violations_text(stage, records)
    assert "generation 1 after 2" in text
    assert "version 7 answered as generation 2" in text
    assert text.count("scored") == 1


def test_the_clients_find_an_undocumented_5xx():
    """A 500 is a violation, and so is a 503 that does not say when to try again."""
    records = ClientRecords()
    for status, headers in ((503, {"retry-after": "1"}), (503, {}), (500, {"retry-after": "1"})):
        records.judge(Answer(status, headers, b""), records.score_statuses)
    assert [violation[:7] for violation in records.violations] == ["I5: 503", "I5: 500"]


@pytest.mark.parametrize("bound", ["API_BYTES", "API_FILES"])
async def test_the_checker_finds_a_bound_that_is_exceeded(stage, monkeypatch, bound):
    """An API process with more memory or more open files than the bound is a violation."""
    stage.start_api()
    await stage.ready()
    assert await violations(stage, ClientRecords()) == []
    monkeypatch.setattr(checker, bound, 1)
    assert ["I6" in violation for violation in await violations(stage, ClientRecords())] == [True]


async def test_a_stage_finds_a_process_that_outlives_its_parent(monkeypatch):
    """A process with the settings of the stage that is not its own is found at the end."""
    context = staged(apis=0)
    stage = await context.__aenter__()
    variables = stage.settings().environment()
    orphan = await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, env=variables)
    monkeypatch.setattr("tests.waiting.PATIENCE", 0.1)
    with pytest.raises(AssertionError, match=f"I7.*{orphan.pid}"):
        await context.__aexit__(None, None, None)
    await orphan.communicate(b"")


@pytest.mark.thorough  # as the fault that it checks
async def test_losing_power_loses_writes_that_are_not_synced():
    """With `appendfsync everysec` a loss of power loses acknowledged batches: the fault is real."""
    with pytest.raises(AssertionError, match="no place"):
        await stores.lose_power(5, "--appendfsync", "everysec")
