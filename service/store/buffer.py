"""The buffer: normal batches, durable from the moment they are acknowledged until they are learned.

One stream entry is one batch. Everything behind the cursor was consumed by a version or is parked;
everything after it is buffered. Entries never move, except that a released range is appended anew.
"""

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from redis.asyncio import Redis

from models import MIN_VECTORS
from service.domain.admission import Verdict
from service.domain.experience import Experience, Source
from service.problems import BadVectors, BufferFull, UnknownDetector, Unprocessable
from service.store.connection import Script
from service.store.group_commit import Group
from service.store.redis_keys import IDEMPOTENCY_SECONDS, Keys

CHUNK_BYTES = 8 * 2**20  # of one reading: the store answers everybody else in between

# KEYS: state, stream, held, senders[, idempotency]
# ARGV: vectors, dimension, sha256, batch, sender, most vectors, most bytes, seconds, uid, payload,
# vectors held back, their payload, version that judged, reason, most held, most bytes held, answer
# (JSON), vectors thinned out, novel vectors, most of a sender's novel ones as a share
_INGEST = Script("""
local state, stream, known = KEYS[1], KEYS[2], KEYS[5]
local n, d, bytes, back = tonumber(ARGV[1]), tonumber(ARGV[2]), #ARGV[10], tonumber(ARGV[11])
local state_now = redis.call('HMGET', state, 'uid', 'dimension', 'buffered', 'parked',
                             'buffered_bytes', 'parked_bytes', 'quarantined', 'quarantined_bytes',
                             'cursor')
local uid, dimension = state_now[1], state_now[2]
if not uid or (ARGV[9] ~= '' and ARGV[9] ~= uid) then return {'unknown'} end
if known then
  local first = redis.call('HMGET', known, 'uid', 'sha256', 'answer', 'buffered')
  if first[1] == uid then
    if first[2] ~= ARGV[3] then return {'other'} end
    return {'duplicate', first[3], tonumber(first[4])}
  end
end
if dimension and dimension ~= '' and tonumber(dimension) ~= d then
  return {'dimension', tonumber(dimension)}
end
local buffered, parked = tonumber(state_now[3]), tonumber(state_now[4])
if n > 0 and (buffered + parked + n > tonumber(ARGV[6])
   or tonumber(state_now[5]) + tonumber(state_now[6]) + bytes > tonumber(ARGV[7])) then
  return {'full', buffered, parked}
end
local quarantined = tonumber(state_now[7] or 0)
if back > 0 and (quarantined + back > tonumber(ARGV[15])
   or tonumber(state_now[8] or 0) + #ARGV[12] > tonumber(ARGV[16])) then
  return {'quarantine full', quarantined}
end
local novel = tonumber(ARGV[19])
if ARGV[5] ~= '' then
  local mine = redis.call('HGET', KEYS[4], ARGV[5])
  local others = redis.call('HLEN', KEYS[4]) - (mine and 1 or 0)
  local at, so_far = string.match(mine or '', '^(%S+) (%d+)$')
  if at == state_now[9] then novel = novel + tonumber(so_far) end
  if tonumber(ARGV[19]) > 0 and others > 0 and novel > tonumber(ARGV[20]) * (buffered + n) then
    return {'share'}
  end
  if mine or others < 1000 then
    redis.call('HSET', KEYS[4], ARGV[5], state_now[9] .. ' ' .. novel)
  end
end
if n > 0 then
  local id = redis.call('XADD', stream, '*', 'b', ARGV[4], 'n', n, 'd', d, 's', ARGV[5],
                        'x', ARGV[10])
  if buffered == 0 then redis.call('HSET', state, 'oldest', id) end
  redis.call('HINCRBY', state, 'buffered_bytes', bytes)
  buffered = redis.call('HINCRBY', state, 'buffered', n)
end
if back > 0 then
  redis.call('XADD', KEYS[3], '*', 'b', ARGV[4], 'n', back, 'd', d, 's', ARGV[5], 'x', ARGV[12],
             'v', ARGV[13], 'r', ARGV[14])
  redis.call('HINCRBY', state, 'quarantined', back)
  redis.call('HINCRBY', state, 'quarantined_bytes', #ARGV[12])
end
if not dimension or dimension == '' then redis.call('HSET', state, 'dimension', d) end
if ARGV[18] ~= '0' then redis.call('HINCRBY', state, 'thinned', ARGV[18]) end
if known then
  redis.call('HSET', known, 'uid', uid, 'sha256', ARGV[3], 'answer', ARGV[17],
             'buffered', buffered)
  redis.call('EXPIRE', known, ARGV[8])
end
return {'stored', ARGV[17], buffered}
""")

# KEYS: state, stream. ARGV: after, until, vectors so far, least vectors, most vectors, most bytes
# Entry by entry, so that no more than one of them is read in vain.
_READ = Script(
    """
local held = redis.call('HMGET', KEYS[1], 'uid', 'cursor', 'generation', 'champion', 'dimension')
if not held[1] then return false end
local after = ARGV[1] == '' and held[2] or ARGV[1]
local n, bytes, entries = tonumber(ARGV[3]), 0, {}
while bytes < tonumber(ARGV[6]) and #entries < 1000 do
  local entry = redis.call('XRANGE', KEYS[2], '(' .. after, ARGV[2], 'COUNT', 1)[1]
  if not entry then break end
  local size = tonumber(entry[2][4])
  if n >= tonumber(ARGV[4]) and n + size > tonumber(ARGV[5]) then break end
  n, bytes, after = n + size, bytes + #entry[2][10], entry[1]
  entries[#entries + 1] = {entry[1], entry[2][2], size, entry[2][8], entry[2][10]}
end
return {held, entries}
""",
    flags="no-writes",
)


@dataclass(frozen=True, slots=True)
class Holding:
    """Bounds of a quarantine, and the most of a buffer that is one sender's novelty."""

    max_vectors: int = 100_000
    max_bytes: int = 64 * 2**20
    sender_novel_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Ingested:
    """The answer to one normal batch; `duplicate` is not 0 where an earlier answer is repeated.

    `triage` is not empty where a champion judged the batch: the shares of `known`, `novel` and
    `suspicious` rows, and how many were `thinned` out.
    """

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int
    triage: dict[str, float] = field(default_factory=dict)


class OneSender(Exception):  # noqa: N818 - it is not an error: the batch is to be judged again
    """Too much of what is buffered would be one sender's novelty."""


class Buffer:
    """Takes normal batches in and gives experiences out."""

    def __init__(
        self,
        redis: Redis,
        *,
        max_vectors: int = 1_000_000,
        max_bytes: int = 512 * 2**20,
        experience_max_vectors: int = 200_000,
        holding: Holding | None = None,
    ) -> None:
        self._redis: Any = redis
        self._ingest = Group(redis, _INGEST)
        self._max_vectors = max_vectors
        self._max_bytes = max_bytes
        self._experience_max_vectors = experience_max_vectors
        self._holding = holding or Holding()

    async def ingest(
        self,
        name: str,
        matrix: NDArray[np.float32],
        *,
        idempotency_key: str | None = None,
        sender: str | None = None,
        uid: str | None = None,
        verdict: Verdict | None = None,
    ) -> Ingested:
        """Store `matrix`, `(n, d)` finite float32, durably, or the first answer again.

        As `verdict` says, or all of it in the buffer. With `uid`, only into that incarnation of
        the detector. Raises UnknownDetector, BadVectors (another dimension), Unprocessable (the
        key came with another matrix), BufferFull, OneSender, and StoreUnavailable: then the
        outcome is unknown, and only a caller with a key may repeat it.
        """
        keys, payload = Keys(name), np.ascontiguousarray(matrix, dtype="<f4")
        n, d = matrix.shape
        known: tuple[str, ...] = ()
        digest = ""
        if idempotency_key is not None:
            known = (keys.idempotency(idempotency_key),)
            digest = await _digest(f"{n}x{d}:".encode(), payload.tobytes())
        batch = secrets.token_hex(8)
        kept = payload if verdict is None else payload[verdict.kept]
        held = payload[:0] if verdict is None else payload[verdict.held]
        triage: dict[str, float] = {}
        if verdict is not None:
            triage = {**verdict.shares, "thinned": n - len(kept) - len(held)}
        told = {
            "batch_id": batch, "accepted": len(kept), "quarantined": len(held), "triage": triage
        }  # fmt: skip
        args = (
            len(kept), d, digest, batch, (sender or "")[:200], self._max_vectors,
            self._max_bytes, IDEMPOTENCY_SECONDS, uid or "", kept.tobytes(),
            len(held), held.tobytes(), verdict.version if verdict else "",
            verdict.reason if verdict else "", self._holding.max_vectors,
            self._holding.max_bytes, orjson.dumps(told),
            int(triage.get("thinned", 0)), verdict.novel if verdict else 0,
            self._holding.sender_novel_share,
        )  # fmt: skip
        where = (keys.state, keys.stream, keys.held, keys.senders, *known)
        reply = await self._ingest(name, where, args, payload.nbytes)
        return self._answer(reply, n, d)

    def _answer(self, reply: list[Any], n: int, d: int) -> Ingested:
        outcome = reply[0].decode()
        if outcome == "unknown":
            raise UnknownDetector("There is no such detector.")
        if outcome == "other":
            raise Unprocessable("This Idempotency-Key came with another matrix before.")
        if outcome == "dimension":
            raise BadVectors(f"The detector's dimension is {reply[1]}, the vectors have {d}.")
        if outcome == "full":
            raise BufferFull(
                f"The buffer holds {reply[1]} vectors and {reply[2]} parked ones; its bounds are "
                f"{self._max_vectors} vectors and {self._max_bytes} bytes."
            )
        if outcome == "quarantine full":
            raise BufferFull(
                f"Vectors of this batch would be held back, and {reply[1]} wait in quarantine "
                f"already; its bounds are {self._holding.max_vectors} vectors and "
                f"{self._holding.max_bytes} bytes. Release or discard some."
            )
        if outcome == "share":
            raise OneSender
        again = n if outcome == "duplicate" else 0
        return Ingested(**orjson.loads(reply[1]), duplicate=again, buffered=reply[2])

    async def take(self, name: str) -> Experience | None:
        """Return what waits to be learned, oldest first, or None when nothing does.

        Whole batches only, so the bound is passed where the first alone is larger, or where fewer
        than a training needs would be left. Nothing changes in the store.
        """
        keys, entries, n = Keys(name), [], 0
        held: list[Any] | None = None
        after: bytes = b""
        while True:
            args = (after, "+", n, MIN_VECTORS, self._experience_max_vectors, CHUNK_BYTES)
            reply = await _READ(self._redis, (keys.state, keys.stream), args)
            if reply is None or (held and reply[0][0] != held[0]):
                return None
            held = held or reply[0]
            if not reply[1]:
                break
            entries += reply[1]
            after = entries[-1][0]
            n += sum(entry[2] for entry in reply[1])
        if not held or not entries:
            return None
        uid, cursor, generation, champion, dimension = (value.decode() for value in held)
        joined = b"".join(entry[4] for entry in entries)
        return Experience(
            name,
            uid,
            int(generation),
            int(champion) if champion else None,
            cursor,
            after.decode(),
            np.frombuffer(joined, dtype="<f4").reshape(-1, int(dimension)),
            tuple(
                Source(batch.decode(), sender.decode("utf-8", "replace"), size)
                for _, batch, size, sender, _ in entries
            ),
        )


async def _digest(*parts: bytes) -> str:
    def digest() -> str:
        return hashlib.sha256(b"".join(parts)).hexdigest()

    # A large matrix takes tens of milliseconds, in which the loop can serve others.
    return await asyncio.to_thread(digest) if sum(map(len, parts)) > 2**20 else digest()
