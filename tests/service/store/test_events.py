import msgspec
import numpy as np
import pytest

from service.domain.attribution import Attribution
from service.domain.event import Event, Label
from service.domain.traffic import Report
from service.store.events import Events
from service.store.labels import LabelStore
from service.store.redis_keys import Keys
from service.store.streams import MAX_BYTES, bounded
from service.store.traffic import TrafficStore
from tests.service.stored import matrix

pytestmark = pytest.mark.anyio


def event(number: int, d: int = 3) -> Event:
    """Return an anomaly whose score is `number`."""
    attributions = (Attribution("a", 1.5, 2.0, 0.5),)
    return Event(1.5, matrix(1, d, number)[0], float(number), 0.001, 1.5, 2, 3, attributions)


async def test_events_come_back_newest_first(stored):
    """Events have vector, score, p-value, version, attributions and an id, newest first."""
    report = Report((await stored.get()).uid, 2, 3, ())
    events, traffic = Events(stored.redis), TrafficStore(stored.redis)
    await traffic.send("pump", "p", 1, report, [event(1), event(2)])
    latest = await events.latest("pump")
    ids = [e.id for e in latest[::-1]]
    assert ids == sorted(ids)
    assert [e.score for e in latest] == [2.0, 1.0]
    assert np.array_equal(latest[0].vector, event(2).vector)
    document = latest[0].to_dict()
    assert document["at"] == "1970-01-01T00:00:01.500Z"
    assert document["attributions"] == msgspec.to_builtins(list(event(2).attributions))
    assert set(await events.get("pump", [ids[0], "1-1", "x", "9" * 99 + "-1", "-"])) == {ids[0]}
    assert len(await events.latest("pump", limit=1)) == 1


async def test_events_are_bounded(stored, redis):
    """The oldest events are dropped; of wide vectors fewer are kept."""
    report = Report((await stored.get()).uid, 2, 3, ())
    traffic = TrafficStore(redis, events_kept=10)
    await traffic.send("pump", "p", 1, report, [event(n) for n in range(30)])
    await traffic.send("pump", "p", 2, report, [event(30)])
    assert [e.score for e in await Events(redis).latest("pump")] == list(range(30, 20, -1))
    assert bounded(1000, MAX_BYTES // 100) == 100
    assert bounded(1000, MAX_BYTES) == 16
    assert bounded(5, MAX_BYTES) == 5


async def test_a_deleted_detector_gets_no_more_events(stored, redis):
    """After a deletion a late writer leaves no key behind."""
    uid = (await stored.get()).uid
    await stored.detectors.delete("pump")
    report = Report(uid, 2, 3, ())
    assert not await TrafficStore(redis).send("pump", "p", 1, report, [event(1)])
    assert not await LabelStore(redis).add("pump", uid, [Label("normal", matrix(1)[0])])
    assert not await redis.exists(Keys("pump").events, Keys("pump").labels)
    assert await Events(redis).latest("pump") == []
