"""The latest anomalies of each detector."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from redis.asyncio import Redis

from service.domain.attribution import Attribution
from service.domain.event import Event
from service.store.connection import ask
from service.store.redis_keys import Keys
from service.store.streams import APPEND, bounded


class Events:
    """The latest `events_kept` anomalies of every detector."""

    def __init__(self, redis: Redis, *, events_kept: int = 1000) -> None:
        self._redis: Any = redis
        self._events_kept = events_kept

    async def append(self, name: str, uid: str, events: Sequence[Event]) -> list[str]:
        """Store events of the detector with this `uid`; return their ids, [] if it was deleted."""
        keys, entries = Keys(name), list(map(packed_event, events))[-self._events_kept :]
        if not entries:
            return []
        kept = bounded(self._events_kept, max(map(len, entries)))
        args = {"uid": uid, "most": kept}
        ids = await APPEND(self._redis, keys, args, entries, stream=keys.events)
        return [entry.decode() for entry in ids]

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


def packed_event(event: Event) -> bytes:
    """Return the event as bytes for its stream."""
    values = {name: getattr(event, name) for name in event.__slots__ if name != "id"}
    values["vector"] = np.asarray(event.vector, dtype="<f4").tobytes()
    if not event.words:
        del values["words"]
    return msgspec.msgpack.encode(values)


class _Packed(msgspec.Struct, frozen=True):
    """An event as stored in its stream; the vector is d little-endian float32 numbers."""

    at: float
    vector: bytes
    score: float
    p_value: float
    severity: float
    version: int
    generation: int
    attributions: tuple[Attribution, ...] = ()
    timestamp: float | None = None
    source: str | None = None
    client_id: str | None = None
    words: dict[int, str] = {}


_decoder = msgspec.msgpack.Decoder(_Packed)


def _event(entry: str, packed: bytes) -> Event:
    """Return the event from the bytes of `packed_event`, with the id of its stream entry."""
    stored = _decoder.decode(packed)
    return Event(
        stored.at, np.frombuffer(stored.vector, dtype="<f4"), stored.score, stored.p_value,
        stored.severity, stored.version, stored.generation, stored.attributions, entry,
        stored.timestamp, stored.source, stored.client_id, stored.words,
    )  # fmt: skip


def _is_id(text: str) -> bool:
    first, dash, last = text.partition("-")
    digits = (first + last).isascii() and first.isdigit() and last.isdigit()
    return bool(dash) and digits and max(len(first), len(last)) <= 19
