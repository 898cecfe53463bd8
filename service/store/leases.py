"""Leases: at most one worker trains a detector. A worker whose lease is over can change nothing.

A lease expires by itself. A worker may be paused until its lease is over, and continue without
knowing it. So every change carries the worker's fencing token, and the script refuses the change if
the token is not that of the present lease.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from service import log
from service.store.connection import ask
from service.store.lua import unfenced
from service.store.redis_keys import WORKERS, Keys, Role
from service.store.script import NamedScript

_log = log.get(__name__)

# Gives a lease, unless one is held with at most `respected` milliseconds left.
_GIVE = NamedScript(
    """
local uid = redis.call('HGET', KEYS.state, STATE.uid)
local left = redis.call('PTTL', KEYS.lease)
if not uid or left >= 0 and left <= tonumber(ARGS.respected) then return false end
local token = redis.call('INCR', KEYS.fence)
redis.call('SET', KEYS.lease, token .. ':' .. ARGS.nonce, 'PX', ARGS.milliseconds)
return {token, uid}
""",
    keys="state lease fence",
    args="nonce milliseconds respected",
)

_RENEW = NamedScript(
    """
if redis.call('GET', KEYS.lease) ~= ARGS.holder then return 0 end
return redis.call('PEXPIRE', KEYS.lease, ARGS.milliseconds)
""",
    keys="lease",
    args="holder milliseconds",
)

_RELEASE = NamedScript(
    """
if redis.call('GET', KEYS.lease) ~= ARGS.holder then return 0 end
return redis.call('DEL', KEYS.lease)
""",
    keys="lease",
    args="holder",
    flags="allow-oom",
)

# The script deletes heartbeats from the future: the store's clock was set back after them.
_BEAT = NamedScript(
    """
local now = redis.call('TIME')
redis.call('ZADD', KEYS.workers, now[1] + now[2] / 1e6, ARGS.worker)
redis.call('ZREMRANGEBYSCORE', KEYS.workers, '-inf', now[1] - 3600)
redis.call('ZREMRANGEBYSCORE', KEYS.workers, '(' .. (now[1] + 2), '+inf')
""",
    keys="workers",
    args="worker",
)
# A lease with more time left than this, and than four times the caller's lease, was written before
# the store's clock was set back. It is ignored.
_LONGEST_SECONDS = 60.0
_AHEAD_SECONDS = 1.0  # tolerance: a heartbeat may come between the two commands


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to change detector `name` until `deadline`, on this process's monotonic clock."""

    name: str
    uid: str
    role: Role
    token: int
    holder: str
    seconds: float
    deadline: float

    @property
    def expired(self) -> bool:
        """Whether the lease is over by this process's clock. It ends before the store's lease."""
        return time.monotonic() >= self.deadline


async def under_lease(
    redis: Redis,
    script: NamedScript,
    lease: Lease,
    args: Mapping[str, object],
    data: Sequence[bytes] = (),
    **more: str,
) -> list[Any]:
    """Run a fenced script on the lease's detector; return its reply. Raises Fenced if it refuses.

    `more` are keys of the script beside those of the detector.
    """
    keys, args = Keys(lease.name), {"holder": lease.holder, **args}
    return unfenced(await script(redis, keys, args, data, lease=keys.lease(lease.role), **more))


class Leases:
    """Grants leases, and records which workers are alive."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._ahead: set[str] = set()  # workers with a heartbeat from the future at the last call

    async def acquire(self, name: str, seconds: float, role: Role = "worker") -> Lease | None:
        """Return a lease whose token is larger than all earlier tokens; None if the lease is held.

        Returns None also if the detector does not exist.
        """
        respected = _milliseconds(max(_LONGEST_SECONDS, 4 * seconds))
        return await self._give(name, seconds, role, respected)

    async def seize(self, name: str, seconds: float, role: Role = "worker") -> Lease | None:
        """Take the lease away from its holder; return a new lease.

        Later writes of the old holder are refused. Returns None if the detector does not exist.
        """
        return await self._give(name, seconds, role, respected=-1)

    async def _give(self, name: str, seconds: float, role: Role, respected: int) -> Lease | None:
        keys, nonce, start = Keys(name), secrets.token_hex(8), time.monotonic()
        args = {
            "nonce": nonce,
            "milliseconds": _milliseconds(seconds),
            "respected": respected,
        }
        granted = await _GIVE(self._redis, keys, args, lease=keys.lease(role))
        if granted is None:
            return None
        token = int(granted[0])
        # The time is taken before the call: so this lease ends before the store's lease.
        return Lease(
            name, granted[1].decode(), role, token, f"{token}:{nonce}", seconds, start + seconds
        )

    async def renew(self, lease: Lease) -> Lease | None:
        """Renew the lease and return it, or None if it is lost."""
        start = time.monotonic()
        keys = Keys(lease.name)
        args = {"holder": lease.holder, "milliseconds": _milliseconds(lease.seconds)}
        renewed = await _RENEW(self._redis, keys, args, lease=keys.lease(lease.role))
        return replace(lease, deadline=start + lease.seconds) if renewed else None

    async def release(self, lease: Lease) -> bool:
        """Give the lease back; return False if it was already lost."""
        keys = Keys(lease.name)
        args = {"holder": lease.holder}
        return bool(await _RELEASE(self._redis, keys, args, lease=keys.lease(lease.role)))

    async def beat(self, worker: str) -> None:
        """Record that `worker` is alive."""
        await _BEAT(self._redis, {"workers": WORKERS}, {"worker": worker})

    async def workers(self) -> dict[str, float]:
        """Return the seconds since the last heartbeat of every worker of the last hour.

        A worker with a heartbeat from the future is left out, because its age is unknown. It is
        logged once.
        """
        pipe = self._redis.pipeline(transaction=False)
        pipe.zrange(WORKERS, 0, -1, withscores=True).time()
        beats, (seconds, micros) = await ask(self._redis, pipe.execute())
        now = seconds + micros / 1e6
        ages = {worker.decode(): now - at for worker, at in beats}
        ahead = {worker for worker, age in ages.items() if age < -_AHEAD_SECONDS}
        if ahead - self._ahead:
            _log.warning(
                "the store's clock went back; workers count as absent until their next beat",
                workers=sorted(ahead), seconds=round(-min(ages.values()), 1),
            )  # fmt: skip
        self._ahead = ahead
        return {w: max(0.0, age) for w, age in ages.items() if w not in ahead}

    async def leave(self, worker: str) -> None:
        """Remove `worker` because it ends normally."""
        await ask(self._redis, self._redis.zrem(WORKERS, worker))


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
