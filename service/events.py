"""The latest anomalies of each detector, and the labels that people gave."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.buffer import IDEMPOTENCY_SECONDS
from service.keys import Keys
from service.store import Script, ask, rfc3339

MAX_BYTES = 64 * 2**20  # of one detector's events, and of its labels: wide vectors are kept fewer
LEAST_KEPT = 16

# KEYS: state, stream[, idempotency]. ARGV: uid, most entries, entry...
# Only for that incarnation: a late writer must not leave keys behind a deleted detector.
APPEND = Script(f"""
if redis.call('HGET', KEYS[1], 'uid') ~= ARGV[1] then return {{}} end
if KEYS[3] and redis.call('GET', KEYS[3]) == ARGV[1] then return {{'again'}} end
local ids = {{}}
for i = 3, #ARGV do
  ids[#ids + 1] = redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], '*', 'e', ARGV[i])
end
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[1], 'EX', {IDEMPOTENCY_SECONDS}) end
return ids
""")


@dataclass(frozen=True, slots=True)
class Event:
    """One vector that was anomalous under `version`; `at` is seconds since 1970.

    `id` is given by the store; `attributions` are dicts as in a scoring answer.
    """

    at: float
    vector: NDArray[np.float32]
    score: float
    p_value: float
    severity: float
    version: int
    generation: int
    attributions: Sequence[dict[str, Any]] = field(default=())
    id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON carries it."""
        return {
            "id": self.id,
            "at": rfc3339(self.at),
            "vector": self.vector.tolist(),
            "score": self.score,
            "p_value": self.p_value,
            "severity": self.severity,
            "version": self.version,
            "generation": self.generation,
            "attributions": list(self.attributions),
        }


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says of a vector, and of which event it was, if of one."""

    label: Literal["normal", "anomaly"]
    vector: NDArray[np.float32]
    event: str | None = None
    at: float = 0.0
    id: str = ""


class Events:
    """The latest `events_kept` anomalies and `labels_kept` labels of every detector."""

    def __init__(self, redis: Redis, *, events_kept: int = 1000, labels_kept: int = 10_000) -> None:
        self._redis: Any = redis
        self._events_kept = events_kept
        self._labels_kept = labels_kept

    async def append(self, name: str, uid: str, events: Sequence[Event]) -> list[str]:
        """Keep `events`, for that incarnation; return their ids, [] once it is gone."""
        keys = Keys(name)
        where = (keys.state, keys.events)
        return await self._append(where, uid, self._events_kept, map(_pack, events))

    async def latest(self, name: str, *, limit: int = 100) -> list[Event]:
        """Return the latest events, newest first."""
        rows = await ask(self._redis, self._redis.xrevrange(Keys(name).events, count=limit))
        return [Event(id=row.decode(), **_unpack(entry[b"e"])) for row, entry in rows]

    async def get(self, name: str, ids: Iterable[str]) -> dict[str, Event]:
        """Return those of the events `ids` that are still kept."""
        wanted = [event for event in ids if _is_id(event)]
        pipe = self._redis.pipeline(transaction=False)
        for event in wanted:
            pipe.xrange(Keys(name).events, event, event)
        replies = await ask(self._redis, pipe.execute())
        return {
            event: Event(id=event, **_unpack(rows[0][1][b"e"]))
            for event, rows in zip(wanted, replies, strict=True)
            if rows
        }

    async def label(
        self, name: str, uid: str, labels: Sequence[Label], *, idempotency_key: str | None = None
    ) -> bool:
        """Keep `labels` for that incarnation, once for each key; return False when it is gone."""
        keys = Keys(name)
        where: tuple[str, ...] = (keys.state, keys.labels)
        if idempotency_key is not None:
            where += (keys.labels_idempotency(idempotency_key),)
        return bool(await self._append(where, uid, self._labels_kept, map(_pack, labels)))

    async def labels(self, name: str, *, limit: int = 10_000) -> list[Label]:
        """Return the latest labels, newest first."""
        rows = await ask(self._redis, self._redis.xrevrange(Keys(name).labels, count=limit))
        return [Label(id=row.decode(), **_unpack(entry[b"e"])) for row, entry in rows]

    async def _append(
        self, where: tuple[str, ...], uid: str, kept: int, packed: Iterable[bytes]
    ) -> list[str]:
        entries = list(packed)[-kept:]
        if not entries:
            return []
        kept = bounded(kept, max(map(len, entries)))
        ids = await APPEND(self._redis, where, (uid, kept, *entries))
        return [entry.decode() for entry in ids]


def bounded(kept: int, size: int) -> int:
    """Return how many entries of `size` bytes are kept, `kept` at most."""
    return max(min(kept, LEAST_KEPT), min(kept, MAX_BYTES // max(size, 1)))


def _pack(entry: Event | Label) -> bytes:
    values = {name: getattr(entry, name) for name in entry.__slots__ if name != "id"}
    values["vector"] = np.asarray(entry.vector, dtype="<f4").tobytes()
    return msgspec.msgpack.encode(values)


def _unpack(packed: bytes) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.msgpack.decode(packed)
    values["vector"] = np.frombuffer(values["vector"], dtype="<f4")
    return values


def _is_id(text: str) -> bool:
    first, dash, last = text.partition("-")
    digits = (first + last).isascii() and first.isdigit() and last.isdigit()
    return bool(dash) and digits and max(len(first), len(last)) <= 19
