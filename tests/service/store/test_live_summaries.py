import pytest

from service.domain.drift_report import Drift
from service.domain.live_summary import LiveSummary
from service.store import live_summaries
from service.store.live_summaries import LiveSummaries, MonitorMemory
from service.store.lua import Fenced
from service.store.redis_keys import Keys
from tests.service.stored import matrix

pytestmark = pytest.mark.anyio


async def test_summaries_are_read_once_and_in_order(stored):
    """Each summary is read once, in order, with the bytes that were sent."""
    uid, stream = (await stored.get()).uid, LiveSummaries(stored.redis)
    for number in range(5):
        summary = LiveSummary(uid, 1, 1, n=number, scores=b"\x00\xff", t=1.5)
        assert await stream.append("pump", summary)
    first = await stream.read("pump", count=3)
    rest = await stream.read("pump", first[-1][0])
    assert [summary.n for _, summary in first + rest] == [0, 1, 2, 3, 4]
    assert first[0][1].scores == b"\x00\xff"
    assert await stream.read("pump", rest[-1][0]) == []


async def test_summaries_are_bounded(stored, redis, monkeypatch):
    """If nobody reads, the oldest summaries are dropped."""
    monkeypatch.setattr(live_summaries, "SUMMARIES_KEPT", 20)
    uid, stream = (await stored.get()).uid, LiveSummaries(redis)
    for number in range(30):
        await stream.append("pump", LiveSummary(uid, 1, 1, n=number))
    assert [s.n for _, s in await stream.read("pump")] == list(range(10, 30))


async def test_live_vectors_are_bounded_and_deleted(stored, redis):
    """Live vectors are a bounded list that belongs to one detector and expires."""
    uid, stream = (await stored.get()).uid, LiveSummaries(redis)
    X = matrix(50)
    for rows in (X[:30], X[30:]):
        await stream.add_to_sample("pump", uid, rows, 40)
    assert await stream.sample_size("pump") == 40
    assert (await stream.sample("pump", 40, 3) == X[10:]).all()
    assert (await stream.sample("pump", 7, 3) == X[-7:]).all()
    assert 0 < await redis.ttl(Keys("pump").shadow) <= live_summaries.SAMPLE_SECONDS
    await stored.detectors.delete("pump")
    await stored.make()
    await stream.add_to_sample("pump", uid, X, 40)
    assert not await redis.exists(Keys("pump").shadow)


async def test_a_deleted_detector_takes_no_summaries(stored, redis):
    """A detector of the same name gets no summaries of a deleted one."""
    uid, stream = (await stored.get()).uid, LiveSummaries(redis)
    await stored.detectors.delete("pump")
    assert not await stream.append("pump", LiveSummary(uid, 1, 1))
    await stored.make()
    assert not await stream.append("pump", LiveSummary(uid, 1, 1))
    assert not await redis.exists(Keys("pump").live)


async def test_a_monitor_without_its_lease_saves_nothing(stored):
    """A monitor without its lease saves nothing."""
    stream = LiveSummaries(stored.redis)
    assert await stream.load("pump") is None
    lease = await stored.leases.acquire("pump", 30, "monitor")
    await stream.save(lease, MonitorMemory("5-0", b"state"), Drift("known_regime"))
    assert await stream.load("pump") == ("5-0", b"state")
    assert (await stored.get()).drift == Drift("known_regime")
    await stream.save(lease, MonitorMemory("6-0", b"more"))
    assert (await stored.get()).drift == Drift("known_regime")
    await stored.leases.release(lease)
    with pytest.raises(Fenced):
        await stream.save(lease, MonitorMemory("7-0", b""), Drift("degraded"))
    assert (await stream.load("pump")).after == "6-0"
