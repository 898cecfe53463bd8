"""Which API processes are alive, and which generation of each detector they serve."""

from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct
from redis.asyncio import Redis

from service.store.connection import ask
from service.store.redis_keys import PROCESSES
from service.store.script import NamedScript

KEPT_SECONDS = 60  # a process without a report for longer is not listed
LOADED = 1000  # detectors listed for one process

_BEAT = NamedScript(
    """
local now = redis.call('TIME')[1]
redis.call('HSET', KEYS.processes, ARGS.process, now .. ' ' .. ARGS.loaded)
local all = redis.call('HGETALL', KEYS.processes)
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], '^%d+')) < now - ARGS.seconds then
    redis.call('HDEL', KEYS.processes, all[i])
  end
end
redis.call('EXPIRE', KEYS.processes, ARGS.seconds)
""",
    keys="processes",
    args="process loaded seconds",
)


class ApiProcess(Struct, frozen=True):
    """An API process, the seconds since its last report, and the generation of each detector."""

    id: str
    heard_seconds: float
    loaded: dict[str, int]


class Processes:
    """The API processes that share the store."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def beat(self, process: str, loaded: Mapping[str, int]) -> None:
        """Record that `process` is alive and serves these generations."""
        names = orjson.dumps(dict(list(loaded.items())[:LOADED]))
        args = {"process": process, "loaded": names, "seconds": KEPT_SECONDS}
        await _BEAT(self._redis, {"processes": PROCESSES}, args)

    async def all(self) -> list[ApiProcess]:
        """Return the processes that reported recently, sorted by id."""
        pipe = self._redis.pipeline(transaction=False).hgetall(PROCESSES).time()
        texts, (seconds, micros) = await ask(self._redis, pipe.execute())
        now = seconds + micros / 1e6
        reports = []
        for process, text in sorted(texts.items()):
            at, _, loaded = text.decode().partition(" ")
            reports.append(
                ApiProcess(process.decode(), max(0.0, now - float(at)), orjson.loads(loaded))
            )
        return [report for report in reports if report.heard_seconds <= KEPT_SECONDS]
