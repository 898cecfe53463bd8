"""Held rows: admission held them back until a person releases or discards them.

One stream entry contains the held rows of one batch, or a part of them. A released entry becomes an
entry of the buffer.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.domain.quarantine_entry import QuarantineEntry
from service.store.connection import ask
from service.store.redis_keys import Keys
from service.store.script import NamedScript
from service.timestamps import rfc3339

ID_PREFIX = "r"  # first character of a quarantine id of held rows
LISTED = 1000

# Returns the oldest entries without their vectors.
_LIST = NamedScript(
    """
local found = {}
for i, entry in ipairs(redis.call('XRANGE', KEYS.held, '-', '+', 'COUNT', ARGS.most)) do
  local batch = batch_of(entry)
  found[i] = {entry[1], batch[BATCH.batch], batch[BATCH.vectors], batch[BATCH.sender],
              batch[BATCH.judged_by], batch[BATCH.reason]}
end
return found
""",
    keys="held",
    args="most",
    flags="no-writes",
)

# Returns the newest rows after the cursor from both streams, merged by time. So buffered rows and
# held rows appear in the proportion in which they arrived.
_NEWEST = NamedScript(
    """
local cursor = redis.call('HGET', KEYS.state, STATE.cursor)
if not cursor then return {} end
local d, wanted, parts = tonumber(ARGS.dimension), tonumber(ARGS.most), {}
local function before(key, id)
  return redis.call('XREVRANGE', key, id, '(' .. cursor, 'COUNT', 1)[1]
end
local function time(entry)
  local ms, seq = string.match(entry[1], '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local buffered, held = before(KEYS.stream, '+'), before(KEYS.held, '+')
while wanted > 0 and (buffered or held) do
  local from_held = held and true or false
  if buffered and held then
    local buffered_ms, buffered_seq = time(buffered)
    local held_ms, held_seq = time(held)
    from_held = held_ms > buffered_ms or (held_ms == buffered_ms and held_seq > buffered_seq)
  end
  local batch = batch_of(from_held and held or buffered)
  if tonumber(batch[BATCH.dimension]) == d then
    local rows = math.min(wanted, batch[BATCH.vectors])
    parts[#parts + 1] = string.sub(batch[BATCH.payload], -rows * d * 4)
    wanted = wanted - rows
  end
  if from_held then
    held = before(KEYS.held, '(' .. held[1])
  else
    buffered = before(KEYS.stream, '(' .. buffered[1])
  end
end
return parts
""",
    keys="state stream held",
    args="dimension most",
    flags="no-writes",
)

# `rows` has one character for each row: rows with '1' move to an entry of their own. Both parts get
# a new entry, because a stream only accepts growing ids.
_SPLIT = NamedScript(
    """
local entry = redis.call('XRANGE', KEYS.held, ARGS.id, ARGS.id)[1]
if not entry then return false end
local batch = fields(entry)
local width = 4 * tonumber(batch[BATCH.dimension])
local parts = {['0'] = {}, ['1'] = {}}
for i = 1, #ARGS.rows do
  local part = parts[string.sub(ARGS.rows, i, i)]
  part[#part + 1] = string.sub(batch[BATCH.payload], (i - 1) * width + 1, i * width)
end
local function add(part)
  local flat = {unpack(entry[2])}
  for i = 1, #flat, 2 do
    if flat[i] == BATCH.vectors then flat[i + 1] = #part end
    if flat[i] == BATCH.payload then flat[i + 1] = table.concat(part) end
  end
  return redis.call('XADD', KEYS.held, '*', unpack(flat))
end
add(parts['0'])
local id = add(parts['1'])
redis.call('XDEL', KEYS.held, entry[1])
return id
""",
    keys="held",
    args="id rows",
)

# One entry is at most one batch. So a single step carries out the whole decision.
_DECIDE = NamedScript(
    """
local state, release = KEYS.state, ARGS.decision == 'release'
local entry = redis.call('XRANGE', KEYS.held, ARGS.id, ARGS.id)[1]
if not entry then return false end
local batch = batch_of(entry)
local n, bytes = batch[BATCH.vectors], #batch[BATCH.payload]
if release then
  local id = redis.call('XADD', KEYS.stream, '*', BATCH.batch, batch[BATCH.batch],
                        BATCH.vectors, n, BATCH.dimension, batch[BATCH.dimension],
                        BATCH.sender, batch[BATCH.sender], BATCH.payload, batch[BATCH.payload],
                        BATCH.trace, batch[BATCH.trace] or '')
  if tonumber(redis.call('HGET', state, STATE.buffered)) == 0 then
    redis.call('HSET', state, STATE.oldest, id)
  end
  redis.call('HINCRBY', state, STATE.buffered, n)
  redis.call('HINCRBY', state, STATE.buffered_bytes, bytes)
else
  redis.call('HINCRBY', state, STATE.discarded, n)
end
redis.call('XDEL', KEYS.held, entry[1])
redis.call('HINCRBY', state, STATE.quarantined, -n)
redis.call('HINCRBY', state, STATE.quarantined_bytes, -bytes)
subtract_held(KEYS.held_senders, batch[BATCH.sender], n)
audit(KEYS.audit, now, '"quarantined"', release and '"buffered"' or '"discarded"', ARGS.audited)
return n
""",
    keys="state stream held held_senders audit",
    args="id decision audited",
)


class HeldRows:
    """The held rows of all detectors."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def list(self, name: str) -> list[QuarantineEntry]:
        """Return the LISTED oldest entries as entries of the quarantine, oldest first."""
        rows = await _LIST(self._redis, Keys(name), {"most": LISTED})
        return [
            QuarantineEntry(
                id=f"{ID_PREFIX}{entry.decode()}",
                kind="rows",
                vectors=int(n),
                reason=reason.decode(),
                version=int(version),
                parked_at=rfc3339(int(entry.partition(b"-")[0]) / 1000) or "",
                decision=None,
                batch_id=batch.decode(),
                sender=sender.decode("utf-8", "replace"),
            )
            for entry, batch, n, sender, version, reason in rows
        ]

    async def vectors(self, name: str, entry: str) -> NDArray[np.float32] | None:
        """Return the vectors (n, d) of the entry with this stream id; None if it does not exist."""
        rows = await ask(self._redis, self._redis.xrange(Keys(name).held, entry, entry))
        if not rows:
            return None
        fields = rows[0][1]
        return np.frombuffer(fields[b"x"], dtype="<f4").reshape(-1, int(fields[b"d"]))

    async def split(self, name: str, entry: str, rows: NDArray[np.bool_]) -> str | None:
        """Move the rows selected by the mask `rows` (n,) to a new entry; return its stream id.

        `rows` must not select all rows. Returns None if the entry does not exist.
        """
        args = {"id": entry, "rows": "".join("1" if row else "0" for row in rows.tolist())}
        entry_id = await _SPLIT(self._redis, Keys(name), args)
        return entry_id.decode() if entry_id else None

    async def newest(self, name: str, dimension: int, most: int) -> NDArray[np.float32]:
        """Return the `most` newest rows after the cursor, buffered or held, as (m, d)."""
        parts = await _NEWEST(self._redis, Keys(name), {"dimension": dimension, "most": most})
        return np.frombuffer(b"".join(parts), dtype="<f4").reshape(-1, dimension)

    async def decide(self, name: str, entry: str, decision: str, audited: bytes) -> int | None:
        """Release or discard one entry; return its number of vectors, None if it does not exist."""
        args = {"id": entry, "decision": decision, "audited": audited}
        n: int | None = await _DECIDE(self._redis, Keys(name), args)
        return n
