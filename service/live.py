"""Summaries of live traffic on their way from the API processes to the drift monitor."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import orjson
from redis.asyncio import Redis

from service.events import APPEND, bounded
from service.keys import Keys
from service.lease import FENCED, Lease
from service.retraining import unfenced
from service.store import Script, ask

SUMMARIES_KEPT = 600  # ten minutes of one API process: the monitor reads every second

# KEYS: state, lease, monitor, drift. ARGV: holder, memory, drift document or ''
_SAVE = Script(
    FENCED
    + """
redis.call('SET', KEYS[3], ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[4], ARGV[3]) end
return {'saved'}
"""
)


class Memory(NamedTuple):
    """What the monitor remembers: the last summary that it read, and its own state."""

    after: str
    state: bytes


class Live:
    """A bounded stream of summaries for each detector; the oldest go first."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def append(self, name: str, summary: Mapping[str, Any]) -> bool:
        """Send `summary` for the incarnation `summary["uid"]`; False when that is gone.

        Values are numbers, text, or bytes of little-endian arrays.
        """
        keys, packed = Keys(name), msgspec.msgpack.encode(dict(summary))
        kept = bounded(SUMMARIES_KEPT, len(packed))
        where = (keys.state, keys.live)
        return bool(await APPEND(self._redis, where, (summary["uid"], kept, packed)))

    async def read(
        self, name: str, after: str = "0-0", count: int = 100
    ) -> list[tuple[str, dict[str, Any]]]:
        """Return up to `count` summaries that came after the id `after`, with their ids."""
        client = self._redis
        rows = await ask(client, client.xrange(Keys(name).live, f"({after}", "+", count=count))
        return [(row.decode(), msgspec.msgpack.decode(entry[b"e"])) for row, entry in rows]

    async def load(self, name: str) -> Memory | None:
        """Return what the monitor saved last, or None."""
        packed = await ask(self._redis, self._redis.get(Keys(name).monitor))
        return Memory(*msgspec.msgpack.decode(packed)) if packed else None

    async def save(
        self, lease: Lease, memory: Memory, drift: Mapping[str, Any] | None = None
    ) -> None:
        """Save the monitor's memory and publish its drift document, in one step.

        Raises Fenced once the lease (role `monitor`) is lost.
        """
        keys = Keys(lease.name)
        document = b"" if drift is None else orjson.dumps(drift, option=orjson.OPT_SERIALIZE_NUMPY)
        where = (keys.state, keys.lease(lease.role), keys.monitor, keys.drift)
        args = (lease.holder, msgspec.msgpack.encode(tuple(memory)), document)
        unfenced(await _SAVE(self._redis, where, args))
