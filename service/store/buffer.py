"""The buffer: normal batches, durable from the moment they are acknowledged until they are learned.

One stream entry is one batch. Everything behind the cursor was consumed by a version or is parked;
everything after it is buffered. Entries never move, except that a released range is appended anew.
"""

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from redis.asyncio import Redis

from models import MIN_VECTORS
from service.domain.admission import Verdict
from service.domain.experience import Experience, Source
from service.domain.ingested import Ingested
from service.problems import BadVectors, BufferFull, UnknownDetector, Unprocessable
from service.store.connection import replicated
from service.store.due_index import DueIndex
from service.store.group_commit import Group
from service.store.lua import NOW, READ
from service.store.redis_keys import IDEMPOTENCY_SECONDS, Keys, suffix
from service.store.script import NamedScript

MOST_ANSWERS = 10_000  # kept under one sender's Idempotency-Keys for a detector: 5 MiB at most
SHARE_HELD = 0.5  # of the quarantine: what one sender of several may fill
CHUNK_BYTES = 8 * 2**20  # of one reading: the store answers everybody else in between

_INGEST = NamedScript(
    READ
    + NOW
    + """
local state, stream, known = KEYS.state, KEYS.stream, KEYS.known
-- What the first release kept for all senders together still counts.
if known and redis.call('EXISTS', known) == 0 and redis.call('EXISTS', KEYS.former) == 1 then
  known = KEYS.former
end
local n, d, back = tonumber(ARGS.vectors), tonumber(ARGS.dimension), tonumber(ARGS.held)
local bytes = #DATA.kept
local held = read(state, STATE.uid, STATE.dimension, STATE.buffered, STATE.parked,
                  STATE.buffered_bytes, STATE.parked_bytes, STATE.quarantined,
                  STATE.quarantined_bytes, STATE.cursor)
local uid, dimension = held[STATE.uid], held[STATE.dimension]
if not uid then return {'unknown'} end
if known then
  local first = read(known, ANSWER.uid, ANSWER.sha256, ANSWER.answer, ANSWER.buffered)
  if first[ANSWER.uid] == uid then
    if first[ANSWER.sha256] ~= ARGS.sha256 then return {'other'} end
    return {'duplicate', first[ANSWER.answer], tonumber(first[ANSWER.buffered])}
  end
end
if dimension and dimension ~= '' and tonumber(dimension) ~= d then
  return {'dimension', tonumber(dimension)}
end
local buffered, parked = tonumber(held[STATE.buffered]), tonumber(held[STATE.parked])
if n > 0 and (buffered + parked + n > tonumber(ARGS.most)
   or tonumber(held[STATE.buffered_bytes]) + tonumber(held[STATE.parked_bytes]) + bytes
      > tonumber(ARGS.most_bytes)) then
  return {'full', buffered, parked}
end
local quarantined = tonumber(held[STATE.quarantined] or 0)
if back > 0 and (quarantined + back > tonumber(ARGS.most_held)
   or tonumber(held[STATE.quarantined_bytes] or 0) + #DATA.held
      > tonumber(ARGS.most_held_bytes)) then
  return {'quarantine full', quarantined}
end
-- Where several send, none fills what the others need.
local waiting = tonumber(redis.call('HGET', KEYS.held_senders, ARGS.sender) or 0)
local others = redis.call('HLEN', KEYS.senders)
                 - redis.call('HEXISTS', KEYS.senders, ARGS.sender)
if back > 0 and ARGS.sender ~= '' and others > 0
   and waiting + back > tonumber(ARGS.share_held) * tonumber(ARGS.most_held) then
  return {'quarantine share', waiting}
end
local novel, cursor = tonumber(ARGS.novel), held[STATE.cursor]
if ARGS.sender ~= '' then
  local mine = redis.call('HGET', KEYS.senders, ARGS.sender)
  local at, so_far = string.match(mine or '', '^(%S+) (%d+)$')
  if at == cursor then novel = novel + tonumber(so_far) end
  if tonumber(ARGS.novel) > 0 and others > 0
     and novel > tonumber(ARGS.share) * (buffered + n) then
    return {'share'}
  end
  if mine or others < 1000 then
    redis.call('HSET', KEYS.senders, ARGS.sender, cursor .. ' ' .. novel)
  end
end
if n > 0 then
  local id = redis.call('XADD', stream, '*', BATCH.batch, ARGS.batch, BATCH.vectors, n,
                        BATCH.dimension, d, BATCH.sender, ARGS.sender, BATCH.payload, DATA.kept)
  if buffered == 0 then redis.call('HSET', state, STATE.oldest, id) end
  if ARGS.labelled == '1' then redis.call('HSET', state, STATE.labelled, id) end
  redis.call('HINCRBY', state, STATE.buffered_bytes, bytes)
  buffered = redis.call('HINCRBY', state, STATE.buffered, n)
end
if back > 0 then
  redis.call('XADD', KEYS.held, '*', BATCH.batch, ARGS.batch, BATCH.vectors, back,
             BATCH.dimension, d, BATCH.sender, ARGS.sender, BATCH.payload, DATA.held,
             BATCH.judged_by, ARGS.judged_by, BATCH.reason, ARGS.reason)
  redis.call('HINCRBY', state, STATE.quarantined, back)
  redis.call('HINCRBY', state, STATE.quarantined_bytes, #DATA.held)
  redis.call('HINCRBY', KEYS.held_senders, ARGS.sender, back)
end
if not dimension or dimension == '' then redis.call('HSET', state, STATE.dimension, d) end
if ARGS.thinned ~= '0' then redis.call('HINCRBY', state, STATE.thinned, ARGS.thinned) end
if known then
  redis.call('HSET', KEYS.known, ANSWER.uid, uid, ANSWER.sha256, ARGS.sha256,
             ANSWER.answer, ARGS.answer, ANSWER.buffered, buffered)
  redis.call('EXPIRE', KEYS.known, ARGS.seconds)
  -- A sender's oldest answers make room for its own newest: nobody else's go.
  redis.call('SADD', KEYS.answerers, ARGS.suffix)
  redis.call('ZADD', KEYS.answers, now, KEYS.known)
  redis.call('ZREMRANGEBYSCORE', KEYS.answers, '-inf', now - ARGS.seconds * 1000)
  local many = redis.call('ZCARD', KEYS.answers) - tonumber(ARGS.most_answers)
  if many > 0 then
    for _, key in ipairs(redis.call('ZRANGE', KEYS.answers, 0, many - 1)) do
      redis.call('UNLINK', key)
    end
    redis.call('ZREMRANGEBYRANK', KEYS.answers, 0, many - 1)
  end
  redis.call('EXPIRE', KEYS.answers, ARGS.seconds)
end
return {'stored', ARGS.answer, buffered}
""",
    keys="state stream held held_senders senders answerers known? former? answers?",
    args="suffix most_answers vectors dimension held sha256 batch sender most most_bytes seconds "
    "judged_by reason most_held most_held_bytes share_held answer thinned novel share labelled",
    data="kept held",
)

# Entry by entry, so that no more than one of them is read in vain.
_READ = NamedScript(
    READ
    + """
local held = redis.call('HMGET', KEYS.state, STATE.uid, STATE.cursor, STATE.generation,
                        STATE.champion, STATE.dimension, STATE.champion_nonce)
if not held[1] then return false end
held[6] = held[6] or ''
local after = ARGS.after == '' and held[2] or ARGS.after
local n, bytes, entries = tonumber(ARGS.so_far), 0, {}
while bytes < tonumber(ARGS.most_bytes) and #entries < 1000 do
  local entry = redis.call('XRANGE', KEYS.stream, '(' .. after, '+', 'COUNT', 1)[1]
  if not entry then break end
  local batch = fields(entry)
  local size = tonumber(batch[BATCH.vectors])
  if n >= tonumber(ARGS.least) and n + size > tonumber(ARGS.most) then break end
  n, bytes, after = n + size, bytes + #batch[BATCH.payload], entry[1]
  entries[#entries + 1] = {entry[1], batch[BATCH.batch], size, batch[BATCH.sender],
                           batch[BATCH.payload]}
end
return {held, entries}
""",
    keys="state stream",
    args="after so_far least most most_bytes",
    flags="no-writes",
)


@dataclass(frozen=True, slots=True)
class Holding:
    """Bounds of a quarantine, and the most of a buffer that is one sender's novelty."""

    max_vectors: int = 100_000
    max_bytes: int = 64 * 2**20
    sender_novel_share: float = 0.5


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
        replicas: int = 0,
    ) -> None:
        self._redis: Any = redis
        self._replicas = replicas
        self._ingest = Group(redis, _INGEST.script)
        self._due = DueIndex(redis)
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
        verdict: Verdict | None = None,
        labelled: bool = False,
    ) -> Ingested:
        """Store `matrix`, `(n, d)` finite float32, durably, or the first answer again.

        As `verdict` says, or all of it in the buffer. `labelled`: a person labelled these rows
        normal, so that a training needs no others. Raises UnknownDetector, BadVectors (another
        dimension), Unprocessable (the key came with another matrix), BufferFull, OneSender, and
        StoreUnavailable: then the outcome is unknown, and only a caller with a key may repeat it.
        """
        keys, payload = Keys(name), np.ascontiguousarray(matrix, dtype="<f4")
        n, d = matrix.shape
        known: dict[str, str] = {}
        digest = ""
        if idempotency_key is not None:
            known = {
                "known": keys.idempotency(idempotency_key, sender or ""),
                "former": keys.idempotency(idempotency_key),
                "answers": keys.answers(suffix(sender or "")),
            }
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
        args = {
            "suffix": suffix(sender or ""),
            "most_answers": MOST_ANSWERS,
            "vectors": len(kept),
            "dimension": d,
            "held": len(held),
            "sha256": digest,
            "batch": batch,
            "sender": (sender or "")[:200],
            "most": self._max_vectors,
            "most_bytes": self._max_bytes,
            "seconds": IDEMPOTENCY_SECONDS,
            "judged_by": verdict.version if verdict else "",
            "reason": verdict.reason if verdict else "",
            "most_held": self._holding.max_vectors,
            "most_held_bytes": self._holding.max_bytes,
            "share_held": SHARE_HELD,
            "answer": orjson.dumps(told),
            "thinned": int(triage.get("thinned", 0)),
            "novel": verdict.novel if verdict else 0,
            "share": self._holding.sender_novel_share,
            "labelled": int(labelled),
        }
        where, values = _INGEST.bound(keys, args, (kept.tobytes(), held.tobytes()), **known)
        reply = await self._ingest(name, where, values, payload.nbytes)
        answer = self._answer(reply, n, d)
        if self._replicas:
            await replicated(self._redis, self._replicas)
        if not answer.duplicate:
            before = answer.buffered - answer.accepted
            await self._due.ingested(name, before, answer.buffered, labelled=labelled)
        return answer

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
        if outcome == "quarantine share":
            raise BufferFull(
                f"Vectors of this batch would be held back, and {reply[1]} of this key wait in "
                f"quarantine already; a key may fill {SHARE_HELD:.0%} of it, so that there is room "
                "for the others. Release or discard some."
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
            args = {
                "after": after,
                "so_far": n,
                "least": MIN_VECTORS,
                "most": self._experience_max_vectors,
                "most_bytes": CHUNK_BYTES,
            }
            reply = await _READ(self._redis, keys, args)
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
        uid, cursor, generation, champion, dimension, nonce = (value.decode() for value in held)
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
            nonce,
        )


async def _digest(*parts: bytes) -> str:
    def digest() -> str:
        return hashlib.sha256(b"".join(parts)).hexdigest()

    # A large matrix takes tens of milliseconds, in which the loop can serve others.
    return await asyncio.to_thread(digest) if sum(map(len, parts)) > 2**20 else digest()
