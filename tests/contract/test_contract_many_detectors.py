"""What the answers about all detectors ask of the store, as detectors and incidents grow."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec
import pytest
from redis.asyncio.connection import AbstractConnection

from service.domain import history
from service.domain.incident import Incident
from service.store.redis_keys import Keys
from tests.contract.running import Running, running

pytestmark = pytest.mark.anyio
_BACKGROUND = 12  # round trips of the polls of the process during a request, at most


@contextmanager
def counted_trips() -> Iterator[list[int]]:
    """Count the messages that are sent to the store, each a command or a pipeline."""
    trips, send = [0], AbstractConnection.send_packed_command

    async def counting(self: Any, *args: Any, **options: Any) -> None:
        trips[0] += 1
        await send(self, *args, **options)

    with mock.patch.object(AbstractConnection, "send_packed_command", counting):
        yield trips


async def add(api: Running, name: str, *, closed: int, started: float) -> None:
    """Add a detector whose oldest incident is open, and `closed` later ones."""
    await api.make(name, dimension=3)
    keys, redis = Keys(name), api.parts.stores.redis
    pipe: Any = redis.pipeline()
    for i in range(closed + 1):
        at = started + i
        one = Incident(f"i{i}-{i}", "", at, at, 2.0, 1e-4, 3, 1, 1, closed=at if i else None)
        pipe.hset(keys.incidents, one.id, msgspec.msgpack.encode(one))
        pipe.zadd(keys.incident_order, {one.id: i})
    pipe.hset(keys.state, mapping={"incidents_opened": closed + 1, "incidents_closed": closed})
    minute = int(time.time() // history.MINUTE)
    rows = {minute - 120: history.Bucket(rows=7, alarms=7), minute - 2: history.Bucket(20, 3)}
    chunks: dict[str, history.Buckets] = {}
    for place, bucket in rows.items():
        chunks.setdefault(history.chunk_of(history.MINUTE, place), {})[place] = bucket
    for chunk, buckets in chunks.items():
        pipe.hset(keys.buckets, chunk, history.pack(buckets))
    await pipe.execute()


@pytest.mark.parametrize("path", ["/v1/attention", "/v1/detectors?recent=true"])
async def test_round_trips_do_not_grow_with_detectors_and_incidents(
    store_url: str, path: str
) -> None:
    """With ten times as many detectors and incidents an answer asks the store hardly more often."""
    async with running(store_url, poll_seconds=2.0) as api:
        trips = {}
        for detectors, closed in ((4, 5), (40, 15)):
            for i in range(detectors):
                await add(api, f"pump-{i}", closed=closed, started=time.time() - 60)
            with counted_trips() as sent:
                answer = await api.http.get(path)
            assert answer.status_code == 200
            trips[detectors] = sent[0]
        assert trips[40] <= trips[4] + _BACKGROUND


async def test_attention_finds_an_open_incident_behind_many_closed_ones(api: Running) -> None:
    """An incident that has been open for long is listed, although newer ones have closed."""
    for name, closed in (("old", 300), ("new", 0)):
        await add(api, name, closed=closed, started=time.time() - 600)
    await api.parts.stores.redis.set(Keys("damaged").incident_order, "no sorted set")
    await api.make("damaged", dimension=3)
    await api.parts.stores.redis.hset(Keys("damaged").state, "incidents_opened", 1)
    items = (await api.http.get("/v1/attention")).json()["items"]
    paths = {item["path"] for item in items if item["kind"] == "incident"}
    assert paths == {f"/v1/detectors/{name}/incidents/i0-0" for name in ("old", "new")}


async def test_a_list_of_detectors_can_say_what_happened_lately(pump: Running) -> None:
    """With `recent` each status has the champion's start, and rows and alarms of the last hour."""
    await add(pump, "other", closed=0, started=time.time())
    answer = await pump.http.get("/v1/detectors", params={"recent": "true"})
    recent = {status["name"]: status["recent"] for status in answer.json()["detectors"]}
    assert recent["other"] == {"champion_since": None, "rows": 20, "alarms": 3}
    (move,) = (await pump.http.get("/v1/detectors/pump/generations")).json()["generations"]
    assert recent["pump"] == {"champion_since": move["at"], "rows": 0, "alarms": 0}
    plain = (await pump.http.get("/v1/detectors")).json()["detectors"]
    assert all("recent" not in status for status in plain)


async def test_the_history_of_an_hour_reads_the_chunks_of_that_hour_alone(api: Running) -> None:
    """A short period reads only its own chunks of the history, and has the same buckets."""
    await add(api, "pump", closed=0, started=time.time())
    asked = []
    read = api.parts.stores.incidents.buckets

    async def noting(name: str, chunks: Any = None) -> Any:
        asked.append(chunks)
        return await read(name, chunks)

    period = {"from": time.time() - 3600, "points": 1500}
    with mock.patch.object(api.parts.stores.incidents, "buckets", noting):
        answer = await api.http.get("/v1/detectors/pump/history", params=period)
    assert [bucket["rows"] for bucket in answer.json()["buckets"]] == [20]
    assert len(asked[0]) <= 4
