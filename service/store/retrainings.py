"""What the worker writes while it retrains a detector; each change carries its lease's token.

A detector is `idle`, `queued` or `running`. It stays `queued` or `running` until an outcome is
final: a crash leaves it `running` for the next worker, a failed attempt puts it back to `queued`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from service.store.connection import Script
from service.store.leases import Lease
from service.store.lua import FENCED, FINISH, unfenced
from service.store.redis_keys import Keys

_START = Script(
    FENCED
    + """
local held = redis.call('HMGET', state, 'requested', 'serving', 'weights', 'run_weights',
                        'attempts')
local weights = held[4] or ''
if tonumber(held[1]) > tonumber(held[2]) then
  weights = held[3] or ''
  redis.call('HSET', state, 'weights', '')
end
redis.call('HSET', state, 'retraining', 'running', 'progress', 0, 'serving', held[1],
           'run_weights', weights)
return {'running', weights, tonumber(held[5])}
"""
)

_PROGRESS = Script(
    FENCED
    + """
redis.call('HSET', state, 'progress', ARGV[2])
return {'running'}
"""
)

_FAIL = Script(
    FENCED
    + """
redis.call('HSET', state, 'retraining', 'queued', 'progress', 0)
return {'queued', redis.call('HINCRBY', state, 'attempts', 1)}
"""
)

_STAND_DOWN = Script(FENCED + FINISH + "finish(state) return {'idle'}")


class Run(NamedTuple):
    """A retraining that has begun: the weights asked for it alone, and its failed attempts."""

    weights: dict[str, float] | str | None
    attempts: int


class Retrainings:
    """Moves a detector's retraining on, for the worker that holds its lease.

    Every method raises Fenced once the lease is lost.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def start(self, lease: Lease) -> Run:
        """Set the detector `running`; what was requested until now is served by this run."""
        reply = await self._fenced(_START, lease)
        return Run(orjson.loads(reply[1]) if reply[1] else None, int(reply[2]))

    async def progress(self, lease: Lease, fraction: float) -> None:
        """Publish how far the training is, from 0 to 1."""
        await self._fenced(_PROGRESS, lease, (f"{fraction:.4f}",))

    async def attempt_failed(self, lease: Lease) -> int:
        """Set the detector back to `queued`; return how many attempts have failed so far."""
        return int((await self._fenced(_FAIL, lease))[1])

    async def stand_down(self, lease: Lease) -> None:
        """End a run that has nothing to learn, without an outcome."""
        await self._fenced(_STAND_DOWN, lease)

    async def _fenced(self, script: Script, lease: Lease, args: Sequence[Any] = ()) -> list[Any]:
        keys = Keys(lease.name)
        reply = await script(
            self._redis, (keys.state, keys.lease(lease.role)), (lease.holder, *args)
        )
        return unfenced(reply)
