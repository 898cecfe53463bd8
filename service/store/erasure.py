"""Deleting normal data once it is learned: from the stream first, then from the append-only file.

The append-only file keeps what was deleted until it is rewritten, so `ERASED` says since when
something waits for that.
"""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service.ages import is_over
from service.problems import StoreUnavailable
from service.store.connection import Script, ask
from service.store.redis_keys import ERASED, Keys

ENTRIES_AT_ONCE = 100  # deleting is quick, but everybody waits for a script

# KEYS: state, stream, erasable. ARGV: milliseconds to keep, most bytes kept, most entries
_ERASE = Script(
    """
local head = redis.call('LINDEX', KEYS[3], 0)
if not head then return {0, 0} end
local at, first, last, n, bytes = string.match(head, '^(%d+) (%S+) (%S+) (%d+) (%d+)$')
local now = redis.call('TIME')
local kept = tonumber(redis.call('HGET', KEYS[1], 'kept_bytes') or 0)
if now[1] * 1000 + now[2] / 1000 - at < tonumber(ARGV[1]) and kept <= tonumber(ARGV[2]) then
  return {0, 0}
end
local gone, freed, entries, done = 0, 0, 0, false
while entries < tonumber(ARGV[3]) do
  local batch = redis.call('XRANGE', KEYS[2], '(' .. first, last, 'COUNT', 1)[1]
  if not batch then done = true break end
  redis.call('XDEL', KEYS[2], batch[1])
  gone, freed, entries = gone + tonumber(batch[2][4]), freed + #batch[2][10], entries + 1
  first = batch[1]
end
redis.call('HINCRBY', KEYS[1], 'kept_bytes', -freed)
if done then
  redis.call('LPOP', KEYS[3])
else
  redis.call('LSET', KEYS[3], 0, at .. ' ' .. first .. ' ' .. last .. ' ' .. n - gone .. ' ' ..
    bytes - freed)
end
return {1, gone}
""",
    flags="allow-oom",
)

# The only key is ERASED.
_MARK = Script("return redis.call('SET', KEYS[1], redis.call('TIME')[1], 'NX')", flags="allow-oom")

# KEYS: erased. ARGV: what was read. Deletions from now on wait for the next rewrite.
_TAKE = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""",
    flags="allow-oom",
)


async def mark_erased(redis: Redis) -> None:
    """Note that the append-only file has something to forget.

    Before the deletion itself: a crash in between costs a rewrite, never leaves one out.
    """
    await _MARK(redis, (ERASED,))


class Erasure:
    """Deletes learned vectors when their time is over."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def erase(self, name: str, keep_seconds: float, max_bytes: int = 512 * 2**20) -> int:
        """Delete some of what was learned `keep_seconds` ago; return how many vectors.

        Call it again until it returns 0. What was learned later goes too, oldest first, where more
        than `max_bytes` would be kept.
        """
        keys, client, gone = Keys(name), self._redis, 0
        if not await self._anything(keys, keep_seconds, max_bytes):
            return 0
        await mark_erased(client)
        looked = True
        while looked and not gone:
            looked, gone = await _ERASE(
                client,
                (keys.state, keys.stream, keys.erasable),
                (round(keep_seconds * 1000), max_bytes, ENTRIES_AT_ONCE),
            )
        return int(gone)

    async def _anything(self, keys: Keys, keep_seconds: float, max_bytes: int) -> bool:
        pipe = self._redis.pipeline(transaction=False)
        pipe.lindex(keys.erasable, 0)
        pipe.hget(keys.state, "kept_bytes")
        pipe.time()
        head, kept, (seconds, micros) = await ask(self._redis, pipe.execute())
        if head is None:
            return False
        learned_at = int(head.split()[0]) / 1000
        age = seconds + micros / 1e6 - learned_at
        return is_over(age, keep_seconds) or int(kept or 0) > max_bytes

    async def rewrite_due(self, seconds: float) -> bool:
        """Whether deleted vectors have waited in the append-only file for `seconds`."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.get(ERASED)
        pipe.time()
        since, (now, _) = await ask(self._redis, pipe.execute())
        return since is not None and is_over(now - int(since), seconds)

    async def rewrite(self) -> bool:
        """Have the store rewrite its append-only file; False when it cannot begin one now."""
        client = self._redis
        since = await ask(client, client.get(ERASED))
        persistence = await ask(client, client.info("persistence"))
        if persistence.get("aof_rewrite_in_progress") or not persistence.get("aof_enabled"):
            return False
        if since is not None:
            await _TAKE(client, (ERASED,), (since,))
        try:
            await ask(client, client.bgrewriteaof())
        except (ResponseError, StoreUnavailable):  # it has to be asked again
            if since is not None:
                await ask(client, client.set(ERASED, since, nx=True))
            return False
        return True
