"""What waits for a person, to be released or discarded: parked experiences, rows held back.

A decision is carried out in steps that each leave every vector in exactly one place; one that a
crash cut short is completed by `resume`, and cannot be turned into the other one.
"""

import re
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.problems import Conflict, Unknown
from service.store.connection import Script, ask
from service.store.erasure import mark_erased
from service.store.held_rows import KIND, Held
from service.store.lua import AUDIT, said
from service.store.redis_keys import Keys
from service.timestamps import rfc3339

Decision = Literal["release", "discard"]

STEP_BYTES = 4 * 2**20
STEP_ENTRIES = 100
_HELD = re.compile(rf"{KIND}([0-9]{{1,19}}-[0-9]{{1,19}})")

# KEYS: state, stream, parked, audit. ARGV: id, decision, most entries, most bytes, who and why
# A released entry is appended anew, so that the cursor stays the one boundary of what is buffered.
_STEP = Script(
    AUDIT
    + """
local state, stream = KEYS[1], KEYS[2]
local text = redis.call('HGET', KEYS[3], ARGV[1])
if not text then return {'unknown'} end
local entry = cjson.decode(text)
if entry.decision and entry.decision ~= ARGV[2] then return {'other', entry.decision} end
if not entry.decision then
  local now = redis.call('TIME')
  audit(KEYS[4], now[1] * 1000 + math.floor(now[2] / 1000), '"parked"',
        ARGV[2] == 'release' and '"buffered"' or '"discarded"', ARGV[5])
end
entry.decision = ARGV[2]
local n, bytes, moved, done = 0, 0, 0, false
while moved < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local batch = redis.call('XRANGE', stream, '(' .. entry.first, entry.last, 'COUNT', 1)[1]
  if not batch then done = true break end
  if ARGV[2] == 'release' then
    local id = redis.call('XADD', stream, '*', unpack(batch[2]))
    if n == 0 and tonumber(redis.call('HGET', state, 'buffered')) == 0 then
      redis.call('HSET', state, 'oldest', id)
    end
  end
  redis.call('XDEL', stream, batch[1])
  n, bytes, moved = n + tonumber(batch[2][4]), bytes + #batch[2][10], moved + 1
  entry.first = batch[1]
end
redis.call('HINCRBY', state, 'parked', -n)
redis.call('HINCRBY', state, 'parked_bytes', -bytes)
if ARGV[2] == 'release' then
  redis.call('HINCRBY', state, 'buffered', n)
  redis.call('HINCRBY', state, 'buffered_bytes', bytes)
else
  redis.call('HINCRBY', state, 'discarded', n)
end
if done then
  redis.call('HDEL', KEYS[3], ARGV[1])
else
  entry.n, entry.bytes = entry.n - n, entry.bytes - bytes
  redis.call('HSET', KEYS[3], ARGV[1], cjson.encode(entry))
end
return {done and 'done' or 'more', n}
"""
)


class Quarantine:
    """The parked experiences, and the rows held back, of all detectors."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._held = Held(redis)

    async def list(self, name: str) -> list[dict[str, Any]]:
        """Return what waits, oldest first.

        Each has `id`, `kind` ("experience" or "rows"), `vectors`, `reason`, `version` (None when
        there is none), `parked_at`, and `decision`, not None where one is being carried out; rows
        have `batch_id` and `sender` too.
        """
        texts = await ask(self._redis, self._redis.hvals(Keys(name).parked))
        entries = sorted((orjson.loads(text) for text in texts), key=lambda e: e["parked"])
        found = [_told(entry) for entry in entries] + await self._held.list(name)
        return sorted(found, key=lambda entry: entry["parked_at"])

    async def vectors(self, name: str, entry_id: str) -> NDArray[np.float32]:
        """Return the vectors (n, d) of an entry of kind `rows`; Unknown when there is none."""
        row = _HELD.fullmatch(entry_id)
        found = await self._held.vectors(name, row[1]) if row else None
        if found is None:
            raise Unknown("There is no such quarantine entry of kind `rows`.")
        return found

    async def decide(
        self, name: str, entry_id: str, decision: Decision, *, who: str = "", why: str = ""
    ) -> int:
        """Release the entry to the end of the buffer, or discard it; return its vectors.

        Raises Unknown when there is none, and Conflict when the other decision has begun.
        """
        keys, total = Keys(name), 0
        audited = said(decision, who, why, entry=entry_id)
        if decision == "discard":
            await mark_erased(self._redis)
        if row := _HELD.fullmatch(entry_id):
            total = await self._held.decide(name, row[1], decision, audited)
            if not total:
                raise Unknown("There is no such quarantine entry.")
            return total
        while True:
            outcome, *rest = await _STEP(
                self._redis,
                (keys.state, keys.stream, keys.parked, keys.audit),
                (entry_id, decision, STEP_ENTRIES, STEP_BYTES, audited),
            )
            if outcome == b"unknown":
                if total:  # somebody else finished the same decision
                    return total
                raise Unknown("There is no such quarantine entry.")
            if outcome == b"other":
                raise Conflict(f"To {rest[0].decode()} this entry has begun already.")
            total += int(rest[0])
            if outcome == b"done":
                return total

    async def resume(self, name: str) -> int:
        """Complete decisions that a crash cut short; return how many vectors that moved."""
        begun = [entry for entry in await self.list(name) if entry["decision"]]
        return sum([await self.decide(name, entry["id"], entry["decision"]) for entry in begun])


def _told(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": entry["id"],
        "kind": entry["kind"],
        "vectors": entry["n"],
        "reason": entry["reason"],
        "version": entry["version"],
        "parked_at": rfc3339(entry["parked"] / 1000),
        "decision": entry.get("decision"),
    }
