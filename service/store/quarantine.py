"""The quarantine: parked experiences and held rows wait until a person releases or discards them.

A decision is carried out in steps. After each step every vector is in exactly one place. If a crash
interrupts a decision, `resume` completes it. A decision that has begun cannot be changed.
"""

import re
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.domain.quarantine_entry import Decision, QuarantineEntry
from service.problems import Conflict, no_such
from service.store.connection import ask
from service.store.due_index import DueIndex
from service.store.erasure import mark_erased
from service.store.held_rows import ID_PREFIX, HeldRows
from service.store.lua import audit_fields
from service.store.redis_keys import Keys
from service.store.script import NamedScript
from service.timestamps import rfc3339

STEP_BYTES = 4 * 2**20
STEP_ENTRIES = 100
_HELD = re.compile(rf"{ID_PREFIX}([0-9]{{1,19}}-[0-9]{{1,19}})")

# The script appends a released entry at the end of the stream. So the cursor alone still separates
# buffered entries from all others.
_STEP = NamedScript(
    """
local state, stream, release = KEYS.state, KEYS.stream, ARGS.decision == 'release'
local text = redis.call('HGET', KEYS.parked, ARGS.id)
if not text then return {'unknown'} end
local entry = cjson.decode(text)
if entry.decision and entry.decision ~= ARGS.decision then return {'other', entry.decision} end
if not entry.decision then
  audit(KEYS.audit, now, '"parked"', release and '"buffered"' or '"discarded"', ARGS.audited)
end
entry.decision = ARGS.decision
local n, bytes, moved, done = 0, 0, 0, false
while moved < tonumber(ARGS.most) and bytes < tonumber(ARGS.most_bytes) do
  local taken = redis.call('XRANGE', stream, '(' .. entry.first, entry.last, 'COUNT', 1)[1]
  if not taken then done = true break end
  local batch = batch_of(taken)
  if release then
    local id = redis.call('XADD', stream, '*', unpack(taken[2]))
    if n == 0 and tonumber(redis.call('HGET', state, STATE.buffered)) == 0 then
      redis.call('HSET', state, STATE.oldest, id)
    end
  end
  redis.call('XDEL', stream, taken[1])
  n, bytes, moved = n + batch[BATCH.vectors], bytes + #batch[BATCH.payload], moved + 1
  entry.first = taken[1]
end
redis.call('HINCRBY', state, STATE.parked, -(done and entry.n or n))
redis.call('HINCRBY', state, STATE.parked_bytes, -(done and entry.bytes or bytes))
if release then
  redis.call('HINCRBY', state, STATE.buffered, n)
  redis.call('HINCRBY', state, STATE.buffered_bytes, bytes)
else
  redis.call('HINCRBY', state, STATE.discarded, n)
end
if done then
  redis.call('HDEL', KEYS.parked, ARGS.id)
else
  entry.n, entry.bytes = entry.n - n, entry.bytes - bytes
  redis.call('HSET', KEYS.parked, ARGS.id, cjson.encode(entry))
end
return {done and 'done' or 'more', n}
""",
    keys="state stream parked audit",
    args="id decision most most_bytes audited",
)


class Quarantine:
    """The parked experiences and the held rows of all detectors."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._held = HeldRows(redis)
        self._due = DueIndex(redis)

    async def list(self, name: str) -> list[QuarantineEntry]:
        """Return all entries of the quarantine, oldest first."""
        texts = await ask(self._redis, self._redis.hvals(Keys(name).parked))
        entries = [_entry(_decoder.decode(text)) for text in texts] + await self._held.list(name)
        return sorted(entries, key=lambda entry: entry.parked_at)

    async def vectors(self, name: str, entry_id: str) -> NDArray[np.float32]:
        """Return the vectors (n, d) of an entry of kind `rows`; raises Unknown if there is none."""
        row = _HELD.fullmatch(entry_id)
        rows = await self._held.vectors(name, row[1]) if row else None
        if rows is None:
            raise no_such("quarantine entry of kind `rows`", ".../quarantine")
        return rows

    async def split(self, name: str, entry_id: str, rows: NDArray[np.bool_]) -> str:
        """Move the rows selected by the mask `rows` (n,) to a new entry; return the new entry's id.

        If all rows are selected, nothing moves and the same id is returned. Raises Unknown if
        there is no such entry of kind `rows`.
        """
        if rows.all():
            return entry_id
        row = _HELD.fullmatch(entry_id)
        new_id = await self._held.split(name, row[1], rows) if row else None
        if new_id is None:
            raise no_such("quarantine entry of kind `rows`", ".../quarantine")
        return f"{ID_PREFIX}{new_id}"

    async def decide(
        self, name: str, entry_id: str, decision: Decision, *, who: str = "", why: str = ""
    ) -> int:
        """Release the entry to the end of the buffer, or discard it; return the number of vectors.

        Raises Unknown if the entry does not exist, and Conflict if the opposite decision has begun.
        """
        audited = audit_fields(decision, who, why, entry=entry_id)
        if decision == "discard":
            await mark_erased(self._redis)
        total = await self._carry_out(name, entry_id, decision, audited)
        if decision == "release":
            await self._due.refresh(name)
        return total

    async def _carry_out(self, name: str, entry_id: str, decision: Decision, audited: bytes) -> int:
        keys, total = Keys(name), 0
        if row := _HELD.fullmatch(entry_id):
            rows = await self._held.decide(name, row[1], decision, audited)
            if rows is None:
                raise no_such("quarantine entry", ".../quarantine")
            return rows
        while True:
            args = {
                "id": entry_id,
                "decision": decision,
                "most": STEP_ENTRIES,
                "most_bytes": STEP_BYTES,
                "audited": audited,
            }
            outcome, *rest = await _STEP(self._redis, keys, args)
            if outcome == b"unknown":
                if total:  # another process finished the same decision
                    return total
                raise no_such("quarantine entry", ".../quarantine")
            if outcome == b"other":
                raise Conflict(f"The opposite decision ({rest[0].decode()}) has begun already.")
            total += int(rest[0])
            if outcome == b"done":
                return total

    async def resume(self, name: str) -> int:
        """Complete the decisions that a crash interrupted; return how many vectors were moved."""
        return sum(
            [
                await self.decide(name, entry.id, entry.decision)
                for entry in await self.list(name)
                if entry.decision
            ]
        )


class _Parked(msgspec.Struct, frozen=True):
    """A parked experience as stored; `parked` is the time in milliseconds since 1970."""

    id: str
    kind: Literal["experience"]
    n: int
    reason: str
    version: int | None
    parked: float
    decision: Decision | None = None


_decoder = msgspec.json.Decoder(_Parked)


def _entry(parked: _Parked) -> QuarantineEntry:
    return QuarantineEntry(
        id=parked.id,
        kind=parked.kind,
        vectors=parked.n,
        reason=parked.reason,
        version=parked.version,
        parked_at=rfc3339(parked.parked / 1000) or "",
        decision=parked.decision,
    )
