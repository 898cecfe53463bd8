"""The buffer: it keeps normal batches durably from their acknowledgement until they are learned.

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
from service.domain.raw_batch import RawBatch
from service.domain.trace import some
from service.problems import BadVectors, BufferFull, UnknownDetector, Unprocessable
from service.store.buffer_lua import ENTRIES, INGEST
from service.store.connection import replicated
from service.store.due_index import DueIndex
from service.store.group_commit import Group
from service.store.redis_keys import IDEMPOTENCY_SECONDS, Keys, suffix

MOST_ANSWERS = 10_000  # kept under one sender's Idempotency-Keys for a detector: 5 MiB at most
SHARE_HELD = 0.5  # of the quarantine: what one sender of several may fill
CHUNK_BYTES = 8 * 2**20  # of one reading: the store answers everybody else in between


@dataclass(frozen=True, slots=True)
class Holding:
    """Bounds of a quarantine, and of one sender's share of new regimes in a buffer."""

    max_vectors: int = 100_000
    max_bytes: int = 64 * 2**20
    sender_novel_share: float = 0.5


class OneSender(Exception):  # noqa: N818 - it is not an error: the batch is to be judged again
    """One sender would have too large a share of new regimes in the buffer."""


class Buffer:
    """Stores normal batches and returns experiences."""

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
        self._ingest = Group(redis, INGEST.script)
        self._due = DueIndex(redis)
        self._max_vectors = max_vectors
        self._max_bytes = max_bytes
        self._experience_max_vectors = experience_max_vectors
        self._holding = holding or Holding()

    async def ingest(  # noqa: PLR0913 - what is known of a batch
        self,
        name: str,
        matrix: NDArray[np.float32],
        *,
        idempotency_key: str | None = None,
        sender: str | None = None,
        verdict: Verdict | None = None,
        labelled: bool = False,
        sent: RawBatch | None = None,
        trace: str = "",
    ) -> Ingested:
        """Store `matrix`, `(n, d)` finite float32, durably, or the first answer again.

        As `verdict` says, or all of it in the buffer. `labelled`: a person labelled these rows
        normal, so that a training needs no others. `sent` is the batch as the client sent it: a
        repetition under the same key is told by it, and with something beside its rows it waits
        for its detector's context. `trace` is the trace id of the request. Raises UnknownDetector,
        BadVectors (another dimension), Unprocessable (the key came with another matrix),
        BufferFull, OneSender, and StoreUnavailable: then the outcome is unknown, and only a caller
        with a key may repeat it.
        """
        keys, payload = Keys(name), np.ascontiguousarray(matrix, dtype="<f4")
        n, d = matrix.shape
        beside = sent.beside if sent else None
        known: dict[str, str] = {}
        digest = ""
        if idempotency_key is not None:
            known = {
                "known": keys.idempotency(idempotency_key, sender or ""),
                "former": keys.idempotency(idempotency_key),
                "answers": keys.answers(suffix(sender or "")),
            }
            told = payload if sent is None else np.ascontiguousarray(sent.X, dtype="<f4")
            shape = "x".join(map(str, told.shape))
            digest = await _digest(f"{shape}:".encode(), told.tobytes())
        batch = secrets.token_hex(8)
        kept = payload if verdict is None else payload[verdict.kept]
        held = payload[:0] if verdict is None else payload[verdict.held]
        triage: dict[str, float] = {}
        if verdict is not None:
            triage = {**verdict.shares, "thinned": n - len(kept) - len(held)}
        answered = {
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
            "answer": orjson.dumps(answered),
            "thinned": int(triage.get("thinned", 0)),
            "novel": verdict.novel if verdict else 0,
            "share": self._holding.sender_novel_share,
            "labelled": int(labelled),
            "raw": "" if beside is None else 1,
            "trace": trace,
        }
        data = kept.tobytes() if beside is None else kept.tobytes() + beside.written()
        where, values = INGEST.bound(keys, args, (data, held.tobytes()), **known)
        reply = await self._ingest(name, where, values, payload.nbytes)
        answer = self._answer(reply, n if sent is None else len(sent.X), d)
        if self._replicas:
            await replicated(self._redis, self._replicas)
        if not answer.duplicate:
            before = answer.buffered - answer.accepted
            await self._due.ingested(name, before, answer.buffered, labelled=labelled)
        return answer

    def _answer(self, reply: list[Any], n: int, d: int) -> Ingested:
        outcome = reply[0].decode()
        if outcome == "unknown":
            raise UnknownDetector()
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
            reply = await ENTRIES(self._redis, keys, args)
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
        raw: tuple[RawBatch, ...] = ()
        if any(entry[6] for entry in entries):
            raw = tuple(
                RawBatch.read(payload, size, int(d), raw=bool(waits))
                for _, _, size, _, payload, d, waits, _ in entries
            )
        joined = b"" if raw else b"".join(entry[4] for entry in entries)
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
                for _, batch, size, sender, *_ in entries
            ),
            nonce,
            raw,
            sum(len(entry[4]) for entry in entries) if raw else 0,
            traces=some(entry[7].decode() for entry in entries),
        )


async def _digest(*parts: bytes) -> str:
    def digest() -> str:
        return hashlib.sha256(b"".join(parts)).hexdigest()

    # A large matrix takes tens of milliseconds, in which the loop can serve others.
    return await asyncio.to_thread(digest) if sum(map(len, parts)) > 2**20 else digest()
