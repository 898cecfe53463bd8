"""Summaries of live traffic on their way from the API processes to the drift monitor."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.domain.drift_report import Drift
from service.domain.live_summary import LiveSummary
from service.store.connection import ask
from service.store.due_index import DueIndex
from service.store.leases import Lease, under_lease
from service.store.lua import FENCED
from service.store.redis_keys import Keys
from service.store.script import NamedScript
from service.store.streams import bounded, live_vectors_kept

SUMMARIES_KEPT = 600  # ten minutes of one API process
SAMPLE_SECONDS = 3600  # live vectors expire this long after the last one came

_SAVE = NamedScript(
    FENCED
    + """
redis.call('SET', KEYS.monitor, DATA.memory)
if DATA.drift ~= '' then redis.call('SET', KEYS.drift, DATA.drift) end
return {'saved'}
""",
    keys="state lease monitor drift",
    args="holder",
    data="memory drift",
)

# Appends only if the detector still has this `uid`: a late write must not recreate deleted keys.
_APPEND = NamedScript(
    """
if redis.call('HGET', KEYS.state, STATE.uid) ~= ARGS.uid then return false end
return redis.call('XADD', KEYS.live, 'MAXLEN', ARGS.most, '*', ENTRY.packed, DATA.summary)
""",
    keys="state live",
    args="uid most",
    data="summary",
)

_SAMPLE = NamedScript(
    """
if redis.call('HGET', KEYS.state, STATE.uid) ~= ARGS.uid then return 0 end
for i = DATA.vectors, #ARGV do redis.call('RPUSH', KEYS.shadow, ARGV[i]) end
redis.call('LTRIM', KEYS.shadow, -ARGS.most, -1)
redis.call('EXPIRE', KEYS.shadow, ARGS.seconds)
return 1
""",
    keys="state shadow",
    args="uid most seconds",
    data="*vectors",
)


_decoder = msgspec.msgpack.Decoder(LiveSummary)


class MonitorMemory(NamedTuple):
    """What the monitor saves: the id of the last summary that it read, and its tests' state."""

    after: str
    state: bytes


class LiveSummaries:
    """A bounded stream of summaries for each detector; the oldest are deleted first."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._due = DueIndex(redis)

    async def append(self, name: str, summary: LiveSummary) -> bool:
        """Append `summary`; return False if the detector with `summary.uid` was deleted."""
        packed = msgspec.msgpack.encode(summary)
        args = {"uid": summary.uid, "most": bounded(SUMMARIES_KEPT, len(packed))}
        return bool(await _APPEND(self._redis, Keys(name), args, (packed,)))

    async def read(
        self, name: str, after: str = "0-0", count: int = 100
    ) -> list[tuple[str, LiveSummary]]:
        """Return up to `count` summaries after the id `after`, with their ids."""
        client = self._redis
        rows = await ask(client, client.xrange(Keys(name).live, f"({after}", "+", count=count))
        return [(row.decode(), _decoder.decode(entry[b"e"])) for row, entry in rows]

    async def add_to_sample(self, name: str, uid: str, X: NDArray[np.float32], most: int) -> None:
        """Keep the latest `most` live vectors of the detector with this `uid`, X (n, d) included.

        If vectors are wide, fewer are kept. All of them expire an hour after the last one came.
        """
        keys, rows = Keys(name), [row.tobytes() for row in X.astype("<f4")]
        args = {"uid": uid, "most": live_vectors_kept(most, X.shape[1]), "seconds": SAMPLE_SECONDS}
        await _SAMPLE(self._redis, keys, args, rows)

    async def sample_size(self, name: str) -> int:
        """Return how many live vectors are kept."""
        return int(await ask(self._redis, self._redis.llen(Keys(name).shadow)))

    async def sample(self, name: str, most: int, d: int) -> NDArray[np.float32]:
        """Return up to `most` latest live vectors, (n, d), oldest first."""
        rows = await ask(self._redis, self._redis.lrange(Keys(name).shadow, -most, -1))
        return np.frombuffer(b"".join(rows), "<f4").reshape(-1, d)

    async def load(self, name: str) -> MonitorMemory | None:
        """Return what the monitor saved last; None if nothing is saved."""
        packed = await ask(self._redis, self._redis.get(Keys(name).monitor))
        return MonitorMemory(*msgspec.msgpack.decode(packed)) if packed else None

    async def save(self, lease: Lease, memory: MonitorMemory, drift: Drift | None = None) -> None:
        """Save the monitor's memory and publish its drift document, in one step.

        Raises Fenced once the lease (role `monitor`) is lost.
        """
        document = b"" if drift is None else orjson.dumps(drift, default=msgspec.to_builtins)
        data = (msgspec.msgpack.encode(tuple(memory)), document)
        await under_lease(self._redis, _SAVE, lease, {}, data)
        if drift is not None and drift.state == "new_regime":  # perhaps due by `retrain.on_drift`
            await self._due.refresh(lease.name)
