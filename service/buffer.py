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
from numpy.typing import NDArray
from redis.asyncio import Redis

from models import MIN_VECTORS
from service.group import Group
from service.keys import Keys
from service.problems import BadVectors, BufferFull, UnknownDetector, Unprocessable
from service.store import Script

IDEMPOTENCY_SECONDS = 24 * 3600
CHUNK_BYTES = 8 * 2**20  # of one reading: the store answers everybody else in between
BATCHES_RECORDED = 1000  # batch ids that a version's record names; its range covers the rest

# KEYS: state, stream[, idempotency]
# ARGV: vectors, dimension, sha256, batch, sender, most vectors, most bytes, seconds, uid, payload
_INGEST = Script("""
local state, stream, known = KEYS[1], KEYS[2], KEYS[3]
local n, d, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), #ARGV[10]
local held = redis.call('HMGET', state, 'uid', 'dimension', 'buffered', 'parked',
                        'buffered_bytes', 'parked_bytes')
local uid = held[1]
if not uid or (ARGV[9] ~= '' and ARGV[9] ~= uid) then return {'unknown'} end
if known then
  local first = redis.call('HMGET', known, 'uid', 'sha256', 'batch', 'accepted', 'buffered')
  if first[1] == uid then
    if first[2] ~= ARGV[3] then return {'other'} end
    return {'duplicate', first[3], tonumber(first[4]), tonumber(first[5])}
  end
end
if held[2] and held[2] ~= '' and tonumber(held[2]) ~= d then
  return {'dimension', tonumber(held[2])}
end
local buffered, parked = tonumber(held[3]), tonumber(held[4])
if buffered + parked + n > tonumber(ARGV[6])
   or tonumber(held[5]) + tonumber(held[6]) + bytes > tonumber(ARGV[7]) then
  return {'full', buffered, parked}
end
local id = redis.call('XADD', stream, '*', 'b', ARGV[4], 'n', n, 'd', d, 's', ARGV[5],
                      'x', ARGV[10])
if not held[2] or held[2] == '' then redis.call('HSET', state, 'dimension', d) end
if buffered == 0 then redis.call('HSET', state, 'oldest', id) end
redis.call('HINCRBY', state, 'buffered_bytes', bytes)
buffered = redis.call('HINCRBY', state, 'buffered', n)
if known then
  redis.call('HSET', known, 'uid', uid, 'sha256', ARGV[3], 'batch', ARGV[4],
             'accepted', n, 'buffered', buffered)
  redis.call('EXPIRE', known, ARGV[8])
end
return {'stored', ARGV[4], n, buffered}
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
class Ingested:
    """The answer to one normal batch; `duplicate` is not 0 where an earlier answer is repeated."""

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int


@dataclass(frozen=True, slots=True)
class Experience:
    """What one retraining learns: the entries in the range `(first, last]` of the stream.

    `champion` (None before the first version) and `generation` are those of the moment it was
    taken: a promotion stands only while they do. `vectors` is `(n, d)` float32.
    """

    name: str
    uid: str
    generation: int
    champion: int | None
    first: str
    last: str
    vectors: NDArray[np.float32]
    batch_ids: tuple[str, ...]
    senders: tuple[str, ...] = field(default=())

    @property
    def n(self) -> int:
        """How many vectors."""
        return int(self.vectors.shape[0])

    @property
    def bytes(self) -> int:
        """How many bytes of the buffer they take."""
        return int(self.vectors.nbytes)

    def summary(self) -> dict[str, Any]:
        """Return what a version's record says of it."""
        return {
            "first": self.first,
            "last": self.last,
            "n": self.n,
            "batch_count": len(self.batch_ids),
            "batches": list(self.batch_ids[:BATCHES_RECORDED]),
        }


class Buffer:
    """Takes normal batches in and gives experiences out."""

    def __init__(
        self,
        redis: Redis,
        *,
        max_vectors: int = 1_000_000,
        max_bytes: int = 512 * 2**20,
        experience_max_vectors: int = 200_000,
    ) -> None:
        self._redis: Any = redis
        self._ingest = Group(redis, _INGEST)
        self._max_vectors = max_vectors
        self._max_bytes = max_bytes
        self._experience_max_vectors = experience_max_vectors

    async def ingest(
        self,
        name: str,
        matrix: NDArray[np.float32],
        *,
        idempotency_key: str | None = None,
        sender: str | None = None,
        uid: str | None = None,
    ) -> Ingested:
        """Store `matrix`, `(n, d)` finite float32, durably, or the first answer again.

        With `uid`, only into that incarnation of the detector. Raises UnknownDetector, BadVectors
        (another dimension), Unprocessable (the key came with another matrix), BufferFull, and
        StoreUnavailable: then the outcome is unknown, and only a caller with a key may repeat it.
        """
        keys, payload = Keys(name), np.ascontiguousarray(matrix, dtype="<f4").tobytes()
        n, d = matrix.shape
        known: tuple[str, ...] = ()
        digest = ""
        if idempotency_key is not None:
            known = (keys.idempotency(idempotency_key),)
            digest = await _digest(f"{n}x{d}:".encode(), payload)
        args = (
            n, d, digest, secrets.token_hex(8), (sender or "")[:200],
            self._max_vectors, self._max_bytes, IDEMPOTENCY_SECONDS, uid or "", payload,
        )  # fmt: skip
        touched = (keys.state, keys.stream, *known)
        reply = await self._ingest(name, touched, args, len(payload))
        return self._answer(reply, d)

    def _answer(self, reply: list[Any], d: int) -> Ingested:
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
        again = reply[2] if outcome == "duplicate" else 0
        return Ingested(reply[1].decode(), reply[2], 0, again, reply[3])

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
            tuple(entry[1].decode() for entry in entries),
            tuple(sorted({entry[3].decode("utf-8", "replace") for entry in entries} - {""})),
        )


async def _digest(*parts: bytes) -> str:
    def digest() -> str:
        return hashlib.sha256(b"".join(parts)).hexdigest()

    # A large matrix takes tens of milliseconds, in which the loop can serve others.
    return await asyncio.to_thread(digest) if sum(map(len, parts)) > 2**20 else digest()
