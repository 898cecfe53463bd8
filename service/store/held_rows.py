"""Rows that admission held back, until a person releases or discards them.

One stream entry holds what was held back of one batch; its first five fields are those of an entry
of the buffer, which it becomes when it is released.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.store.connection import Script, ask
from service.store.lua import AUDIT
from service.store.redis_keys import Keys
from service.timestamps import rfc3339

KIND = "r"  # what the quarantine's ids of rows begin with
LISTED = 1000

# KEYS: held. ARGV: most entries. Everything but the vectors.
_LIST = Script(
    """
local found = {}
for i, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])) do
  local f = entry[2]
  found[i] = {entry[1], f[2], f[4], f[8], f[12], f[14]}
end
return found
""",
    flags="no-writes",
)

# KEYS: state, stream, held. ARGV: dimension, most rows. The newest rows behind the cursor of both
# streams, by time, so that each kind has the share that it had of what came last.
_AROUND = Script(
    """
local cursor = redis.call('HGET', KEYS[1], 'cursor')
if not cursor then return {} end
local d, wanted, parts = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
local function before(key, id)
  return redis.call('XREVRANGE', key, id, '(' .. cursor, 'COUNT', 1)[1]
end
local function time(entry)
  local ms, seq = string.match(entry[1], '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local a, b = before(KEYS[2], '+'), before(KEYS[3], '+')
while wanted > 0 and (a or b) do
  local from_held = b and true or false
  if a and b then
    local at, as = time(a)
    local bt, bs = time(b)
    from_held = bt > at or (bt == at and bs > as)
  end
  local entry = from_held and b or a
  local f = entry[2]
  if tonumber(f[6]) == d then
    local rows = math.min(wanted, tonumber(f[4]))
    parts[#parts + 1] = string.sub(f[10], -rows * d * 4)
    wanted = wanted - rows
  end
  if from_held then b = before(KEYS[3], '(' .. b[1]) else a = before(KEYS[2], '(' .. a[1]) end
end
return parts
""",
    flags="no-writes",
)

# KEYS: state, stream, held, audit. ARGV: id, decision, who and why
# One entry is one batch, so that one step is the whole decision.
_DECIDE = Script(
    AUDIT
    + """
local state = KEYS[1]
local entry = redis.call('XRANGE', KEYS[3], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
local f, now = entry[2], redis.call('TIME')
local n, bytes = tonumber(f[4]), #f[10]
if ARGV[2] == 'release' then
  local id = redis.call('XADD', KEYS[2], '*', unpack(f, 1, 10))
  if tonumber(redis.call('HGET', state, 'buffered')) == 0 then
    redis.call('HSET', state, 'oldest', id)
  end
  redis.call('HINCRBY', state, 'buffered', n)
  redis.call('HINCRBY', state, 'buffered_bytes', bytes)
else
  redis.call('HINCRBY', state, 'discarded', n)
end
redis.call('XDEL', KEYS[3], entry[1])
redis.call('HINCRBY', state, 'quarantined', -n)
redis.call('HINCRBY', state, 'quarantined_bytes', -bytes)
audit(KEYS[4], now[1] * 1000 + math.floor(now[2] / 1000), '"quarantined"',
      ARGV[2] == 'release' and '"buffered"' or '"discarded"', ARGV[3])
return n
"""
)


class Held:
    """The rows held back, of all detectors."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def list(self, name: str) -> list[dict[str, Any]]:
        """Return what waits, the oldest LISTED batches, oldest first, as the quarantine has it."""
        rows = await _LIST(self._redis, (Keys(name).held,), (LISTED,))
        return [
            {
                "id": f"{KIND}{entry.decode()}",
                "kind": "rows",
                "vectors": int(n),
                "reason": reason.decode(),
                "version": int(version),
                "parked_at": rfc3339(int(entry.partition(b"-")[0]) / 1000),
                "decision": None,
                "batch_id": batch.decode(),
                "sender": sender.decode("utf-8", "replace"),
            }
            for entry, batch, n, sender, version, reason in rows
        ]

    async def vectors(self, name: str, entry: str) -> NDArray[np.float32] | None:
        """Return the vectors (n, d) of one entry, by its stream id; None when it is not there."""
        rows = await ask(self._redis, self._redis.xrange(Keys(name).held, entry, entry))
        if not rows:
            return None
        fields = rows[0][1]
        return np.frombuffer(fields[b"x"], dtype="<f4").reshape(-1, int(fields[b"d"]))

    async def around(self, name: str, dimension: int, most: int) -> NDArray[np.float32]:
        """Return the `most` newest rows, (m, d), buffered or held back behind the cursor."""
        keys = Keys(name)
        where = (keys.state, keys.stream, keys.held)
        parts = await _AROUND(self._redis, where, (dimension, most))
        return np.frombuffer(b"".join(parts), dtype="<f4").reshape(-1, dimension)

    async def decide(self, name: str, entry: str, decision: str, audited: bytes) -> int:
        """Release one entry to the buffer, or discard it; return its vectors, 0 if it is gone."""
        keys = Keys(name)
        where = (keys.state, keys.stream, keys.held, keys.audit)
        return int(await _DECIDE(self._redis, where, (entry, decision, audited)))
