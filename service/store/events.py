"""The latest anomalies of each detector."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from service.domain.event import Event
from service.store.connection import ask
from service.store.packing import reader
from service.store.redis_keys import Keys

_read = reader(Event)


class Events:
    """Reads the latest anomalies of every detector. `TrafficStore` writes them."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def latest(self, name: str, *, limit: int = 100) -> list[Event]:
        """Return the latest events, newest first."""
        rows = await ask(self._redis, self._redis.xrevrange(Keys(name).events, count=limit))
        return [_event(row.decode(), entry[b"e"]) for row, entry in rows]

    async def get(self, name: str, ids: Iterable[str]) -> dict[str, Event]:
        """Return the events among `ids` that are still kept."""
        wanted = [event for event in ids if _is_id(event)]
        pipe = self._redis.pipeline(transaction=False)
        for event in wanted:
            pipe.xrange(Keys(name).events, event, event)
        replies = await ask(self._redis, pipe.execute())
        return {
            event: _event(event, rows[0][1][b"e"])
            for event, rows in zip(wanted, replies, strict=True)
            if rows
        }


def _event(entry: str, data: bytes) -> Event:
    """Return the event in a stream entry, with the id of the entry."""
    return replace(_read(data), id=entry)


def _is_id(text: str) -> bool:
    first, dash, last = text.partition("-")
    digits = (first + last).isascii() and first.isdigit() and last.isdigit()
    return bool(dash) and digits and max(len(first), len(last)) <= 19
