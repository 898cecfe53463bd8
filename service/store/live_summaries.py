"""Summaries of live traffic on their way from the API processes to the drift monitor."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.store.connection import Script, ask
from service.store.leases import Lease
from service.store.lua import FENCED, unfenced
from service.store.redis_keys import Keys
from service.store.streams import APPEND, bounded, kept

SUMMARIES_KEPT = 600  # ten minutes of one API process: the monitor reads every second
SAMPLE_SECONDS = 3600  # after the last of them, live vectors are no longer live

# KEYS: state, lease, monitor, drift. ARGV: holder, memory, drift document or ''
_SAVE = Script(
    FENCED
    + """
redis.call('SET', KEYS[3], ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[4], ARGV[3]) end
return {'saved'}
"""
)


# KEYS: state, shadow. ARGV: uid, most vectors, seconds, vector...
_SAMPLE = Script("""
if redis.call('HGET', KEYS[1], 'uid') ~= ARGV[1] then return 0 end
for i = 4, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
redis.call('LTRIM', KEYS[2], -ARGV[2], -1)
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
""")


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

    async def keep(self, name: str, uid: str, X: NDArray[np.float32], most: int) -> None:
        """Keep live vectors X (n, d) of that incarnation; in all the latest `most`, in bounds.

        They go once no more came for an hour.
        """
        keys, rows = Keys(name), [row.tobytes() for row in X.astype("<f4")]
        where = (keys.state, keys.shadow)
        await _SAMPLE(self._redis, where, (uid, kept(most, X.shape[1]), SAMPLE_SECONDS, *rows))

    async def sampled(self, name: str) -> int:
        """Return how many live vectors are kept."""
        return int(await ask(self._redis, self._redis.llen(Keys(name).shadow)))

    async def sample(self, name: str, most: int, d: int) -> NDArray[np.float32]:
        """Return the latest `most` live vectors at the most, oldest first, (n, d)."""
        rows = await ask(self._redis, self._redis.lrange(Keys(name).shadow, -most, -1))
        return np.frombuffer(b"".join(rows), "<f4").reshape(-1, d)

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
