"""Deletes learned normal data: first from the stream, then from the append-only file.

The append-only file still holds deleted vectors until the store rewrites it. The key `ERASED` says
since when deleted vectors wait for a rewrite. When a rewrite starts, this time moves to the key
`ERASING`. A rewrite erases the vectors that were deleted before it began, and only if it succeeds.
"""

import time
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.ages import is_over
from service.problems import StoreUnavailable
from service.store.connection import ask
from service.store.redis_keys import ERASED, ERASING, Keys
from service.store.script import NamedScript

AGAIN_SECONDS = 30.0  # pause after a failed rewrite
ENTRIES_AT_ONCE = 100  # the most entries of one script call, for which all other clients wait

_ERASE = NamedScript(
    """
local head = redis.call('LINDEX', KEYS.erasable, 0)
if not head then return {0, 0} end
local at, first, last, n, bytes = string.match(head, '^(%d+) (%S+) (%S+) (%d+) (%d+)$')
local now = redis.call('TIME')
local kept = tonumber(redis.call('HGET', KEYS.state, STATE.kept_bytes) or 0)
if now[1] * 1000 + now[2] / 1000 - at < tonumber(ARGS.milliseconds)
   and kept <= tonumber(ARGS.most_bytes) then
  return {0, 0}
end
local gone, freed, entries, done = 0, 0, 0, false
while entries < tonumber(ARGS.most) do
  local entry = redis.call('XRANGE', KEYS.stream, '(' .. first, last, 'COUNT', 1)[1]
  if not entry then done = true break end
  local batch = batch_of(entry)
  redis.call('XDEL', KEYS.stream, entry[1])
  gone, entries = gone + batch[BATCH.vectors], entries + 1
  freed = freed + #batch[BATCH.payload]
  first = entry[1]
end
redis.call('HINCRBY', KEYS.state, STATE.kept_bytes, -freed)
if done then
  redis.call('LPOP', KEYS.erasable)
else
  redis.call('LSET', KEYS.erasable, 0, at .. ' ' .. first .. ' ' .. last .. ' ' .. n - gone ..
    ' ' .. bytes - freed)
end
return {1, gone}
""",
    keys="state stream erasable",
    args="milliseconds most_bytes most",
    flags="allow-oom",
)

_MARK = NamedScript(
    "return redis.call('SET', KEYS.erased, redis.call('TIME')[1], 'NX')",
    keys="erased",
    flags="allow-oom",
)

# The script deletes the mark `ERASED`, so that every later deletion sets a new mark: the rewrite
# that is about to begin may miss such a deletion.
_BEGIN = NamedScript(
    """
local since = redis.call('GET', KEYS.erased)
if not since or redis.call('EXISTS', KEYS.erasing) == 1 then return 0 end
redis.call('SET', KEYS.erasing, since .. ' ' .. ARGS.began)
redis.call('DEL', KEYS.erased)
return 1
""",
    keys="erased erasing",
    args="began",
    flags="allow-oom",
)

# If the rewrite failed, the script restores the old time in `ERASED`. The old time is earlier than
# any mark that was set during the rewrite.
_END = NamedScript(
    """
if redis.call('GET', KEYS.erasing) ~= ARGS.noted then return 0 end
if ARGS.done == '0' then
  redis.call('SET', KEYS.erased, string.match(ARGS.noted, '^%d+'))
end
return redis.call('DEL', KEYS.erasing)
""",
    keys="erased erasing",
    args="noted done",
    flags="allow-oom",
)

_WHERE = {"erased": ERASED, "erasing": ERASING}


async def mark_erased(redis: Redis) -> None:
    """Record that the append-only file still holds deleted vectors.

    Call it before the deletion: a crash in between costs at most one unnecessary rewrite.
    """
    await _MARK(redis, _WHERE)


class Erasure:
    """Deletes learned vectors after their retention time."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._not_before = 0.0  # monotonic; set after a failed rewrite

    async def erase(self, name: str, keep_seconds: float, max_bytes: int = 512 * 2**20) -> int:
        """Delete some vectors learned at least `keep_seconds` ago; return how many.

        Call it again until it returns 0. If the learned vectors take more than `max_bytes`, newer
        ones are deleted too, oldest first.
        """
        keys, client, erased = Keys(name), self._redis, 0
        if not await self._has_erasable(keys, keep_seconds, max_bytes):
            return 0
        await mark_erased(client)
        args = {
            "milliseconds": round(keep_seconds * 1000),
            "most_bytes": max_bytes,
            "most": ENTRIES_AT_ONCE,
        }
        more = True
        while more and not erased:  # the first range may have no entries left
            more, erased = await _ERASE(client, keys, args)
        return int(erased)

    async def _has_erasable(self, keys: Keys, keep_seconds: float, max_bytes: int) -> bool:
        pipe = self._redis.pipeline(transaction=False)
        pipe.lindex(keys.erasable, 0).hget(keys.state, "kept_bytes").time()
        head, kept, (seconds, micros) = await ask(self._redis, pipe.execute())
        if head is None:
            return False
        learned_at = int(head.split()[0]) / 1000
        age = seconds + micros / 1e6 - learned_at
        return is_over(age, keep_seconds) or int(kept or 0) > max_bytes

    async def rewrite_due(self, seconds: float) -> bool:
        """Return whether deleted vectors have waited in the append-only file for `seconds`."""
        pipe = self._redis.pipeline(transaction=False).get(ERASED).time()
        since, (now, _) = await ask(self._redis, pipe.execute())
        return since is not None and is_over(now - int(since), seconds)

    async def rewrite(self) -> bool:
        """Start a rewrite of the append-only file; return False if none can start now.

        `rewrite_result` deletes the mark once the rewrite has succeeded.
        """
        client = self._redis
        store = await self._rewrite_state()
        if store is None or store.rewriting or time.monotonic() < self._not_before:
            return False
        await _BEGIN(client, _WHERE, {"began": f"{store.run} {store.rewrites}"})
        try:
            await ask(client, client.bgrewriteaof())
        except (ResponseError, StoreUnavailable):  # `rewrite_result` detects that no rewrite began
            self._not_before = time.monotonic() + AGAIN_SECONDS
            return False
        return True

    async def rewrite_result(self) -> bool | None:
        """Return whether the rewrite succeeded; None if it still runs or none was started.

        A rewrite fails if it is killed, if the disk is full, or if the store stops. Then the mark
        is restored, and the next rewrite may start after `AGAIN_SECONDS`.
        """
        client = self._redis
        noted = await ask(client, client.get(ERASING))
        if noted is None:
            return None
        store = await self._rewrite_state()
        if store is None or store.rewriting:
            return None
        _, run, rewrites = noted.decode().split()
        succeeded = store.run == run and store.rewrites > int(rewrites) and store.ended_well
        await _END(client, _WHERE, {"noted": noted, "done": int(succeeded)})
        if not succeeded:
            self._not_before = time.monotonic() + AGAIN_SECONDS
        return succeeded

    async def _rewrite_state(self) -> "_Rewriting | None":
        """Return the state of the store's rewrites; None if the store has no append-only file."""
        pipe = self._redis.pipeline(transaction=False).info("persistence").info("server")
        persistence, server = await ask(self._redis, pipe.execute())
        if not persistence.get("aof_enabled"):
            return None
        return _Rewriting(
            str(server["run_id"]),
            int(persistence["aof_rewrites"]),
            bool(persistence["aof_rewrite_in_progress"] or persistence["aof_rewrite_scheduled"]),
            persistence["aof_last_bgrewrite_status"] == "ok",
        )


class _Rewriting(NamedTuple):
    """The run id of the store, its number of rewrites, and the state of the latest rewrite."""

    run: str
    rewrites: int
    rewriting: bool
    ended_well: bool
