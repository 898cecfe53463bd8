"""The buffer: it keeps acknowledged normal batches durably until a version has learned them.

One stream entry is one batch. All entries up to the cursor are consumed by a version or parked. All
entries after the cursor are buffered. An entry never moves, with one exception: releasing an entry
appends it again at the end of the stream.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from models import MIN_VECTORS
from service.domain.admission import AdmissionVerdict
from service.domain.experience import BatchPart, Experience
from service.domain.ingested import Ingested
from service.domain.raw_batch import RawBatch
from service.domain.trace import distinct_traces
from service.problems import BadVectors, BufferFull, UnknownDetector, Unprocessable
from service.settings import Settings
from service.store.buffer_lua import ENTRIES, INGEST
from service.store.connection import replicated
from service.store.due_index import DueIndex
from service.store.group_commit import GroupCommit
from service.store.redis_keys import IDEMPOTENCY_SECONDS, MOST_ANSWERS, Keys, suffix

SHARE_HELD = 0.5  # largest share of the quarantine for one of several senders
CHUNK_BYTES = 8 * 2**20  # read at once; the store serves other clients in between


class SenderShareExceeded(Exception):  # noqa: N818 - no error: the batch is judged again
    """The novel rows of one sender would take too large a share of the buffer."""


class DamagedBuffer(Exception):  # noqa: N818 - it states what is wrong
    """Stored batches cannot be read. The message says which, for a person."""


class Buffer:
    """Stores normal batches and returns experiences, within the bounds of `settings`."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis: Any = redis
        self._ingest = GroupCommit(redis, INGEST.script)
        self._due = DueIndex(redis)
        self._settings = settings

    async def ingest(  # noqa: PLR0913 - what is known of a batch
        self,
        name: str,
        matrix: NDArray[np.float32],
        *,
        idempotency_key: str | None = None,
        sender: str | None = None,
        verdict: AdmissionVerdict | None = None,
        labelled: bool = False,
        sent: RawBatch | None = None,
        trace: str = "",
    ) -> Ingested:
        """Store `matrix`, `(n, d)` finite float32, durably; return the answer.

        A repeated `idempotency_key` returns the first answer and stores nothing. `verdict` decides
        which rows are buffered or held back; without it all rows are buffered. `labelled` means
        that a person labelled the rows normal: then one row is enough for a training. `sent` is the
        batch as the client sent it. A repetition is recognised by the rows of `sent`. Data beside
        these rows is stored with them until the detector's context is chosen. `trace` is the
        request's trace id.

        Raises UnknownDetector, BadVectors (another dimension), Unprocessable (the key came with
        another matrix), BufferFull, SenderShareExceeded and StoreUnavailable. After
        StoreUnavailable the outcome is unknown: only a caller with a key may repeat the call.
        """
        keys, payload = Keys(name), np.ascontiguousarray(matrix, dtype="<f4")
        rows, details = (matrix, None) if sent is None else (sent.X, sent.details)
        digest = "" if idempotency_key is None else await _digest_of(rows)
        kept, held_back, judged = _judged(payload, verdict)
        args = {
            **self._bounds(),
            **judged,
            "suffix": suffix(sender or ""),
            "sha256": digest,
            "sender": (sender or "")[:200],
            "labelled": int(labelled),
            "raw": "" if details is None else 1,
            "trace": trace,
        }
        data = kept.tobytes() if details is None else kept.tobytes() + details.written()
        known = _answer_keys(keys, idempotency_key, sender or "")
        key_names, values = INGEST.bound(keys, args, (data, held_back.tobytes()), **known)
        reply = await self._ingest(name, key_names, values, payload.nbytes)
        answer = self._answer(reply, len(rows), matrix.shape[1])
        if self._settings.wait_replicas:
            await replicated(self._redis, self._settings.wait_replicas)
        if not answer.duplicate:
            before = answer.buffered - answer.accepted
            await self._due.ingested(name, before, answer.buffered, labelled=labelled)
        return answer

    def _bounds(self) -> dict[str, float]:
        """Return the script's arguments that are the same for every batch."""
        bounds = self._settings
        return {
            "most": bounds.buffer_max_vectors,
            "most_bytes": bounds.buffer_max_bytes,
            "most_held": bounds.quarantine_max_vectors,
            "most_held_bytes": bounds.quarantine_max_bytes,
            "share_held": SHARE_HELD,
            "share": bounds.sender_novel_share,
            "seconds": IDEMPOTENCY_SECONDS,
            "most_answers": MOST_ANSWERS,
        }

    def _answer(self, reply: list[Any], n: int, d: int) -> Ingested:
        outcome, bounds = reply[0].decode(), self._settings
        if outcome == "unknown":
            raise UnknownDetector()
        if outcome == "other":
            raise Unprocessable(
                "This Idempotency-Key was sent with other vectors before. Use a new key for a "
                "new batch."
            )
        if outcome == "dimension":
            raise BadVectors(f"The detector's dimension is {reply[1]}, the vectors have {d}.")
        if outcome == "full":
            raise BufferFull(
                f"The buffer holds {reply[1]} vectors and {reply[2]} parked ones; its bounds are "
                f"{bounds.buffer_max_vectors} vectors and {bounds.buffer_max_bytes} bytes. "
                "Send the batch again after a retraining."
            )
        if outcome == "quarantine full":
            raise BufferFull(
                f"Admission would hold back vectors of this batch, but {reply[1]} wait in "
                f"quarantine already. Its bounds are {bounds.quarantine_max_vectors} vectors and "
                f"{bounds.quarantine_max_bytes} bytes. Release or discard some of its entries."
            )
        if outcome == "quarantine share":
            raise BufferFull(
                f"Admission would hold back vectors of this batch, but {reply[1]} vectors of this "
                f"key wait in quarantine already. One key may fill {SHARE_HELD:.0%} of the "
                "quarantine, so that there is room for others. Release or discard some of them."
            )
        if outcome == "share":
            raise SenderShareExceeded
        duplicate = n if outcome == "duplicate" else 0
        return Ingested(**orjson.loads(reply[1]), duplicate=duplicate, buffered=reply[2])

    async def take(self, name: str, *, rows: bool = True) -> Experience | None:
        """Return the buffered batches as an experience, oldest first; None if there are none.

        Only whole batches are taken. So the experience exceeds its bound if the first batch alone
        exceeds it, or if fewer batches would be too few for a training. The store is not changed.
        Without `rows` the vectors are left out, and all else is the same. Raises DamagedBuffer:
        with `rows` if a batch is damaged, and always if the stream itself cannot be read.
        """
        state: list[bytes] | None = None
        entries: list[_Entry] = []
        while True:
            args = {
                "after": entries[-1].id if entries else b"",
                "so_far": sum(entry.vectors for entry in entries),
                "least": MIN_VECTORS,
                "most": self._settings.experience_max_vectors,
                "most_bytes": CHUNK_BYTES,
                "rows": int(rows),
            }
            try:
                reply = await ENTRIES(self._redis, Keys(name), args)
            except ResponseError as error:
                why = str(error).partition(" script:")[0]
                raise DamagedBuffer(
                    f"The stored batches cannot be read ({why}). Repair or delete the key "
                    f"{Keys(name).stream} in the store. Then ask for a retraining."
                ) from error
            if reply is None or (state and reply[0][0] != state[0]):
                return None  # the detector was deleted meanwhile
            state = state or reply[0]
            if not reply[1]:
                break
            entries += [_Entry(*entry) for entry in reply[1]]
        return _experience(name, state, entries, rows) if state and entries else None


class _Entry(NamedTuple):
    """An entry as `ENTRIES` returns it; `raw` is not empty if its rows wait for a context.

    `size` is that of the payload in bytes, also if the payload itself is left out.
    """

    id: bytes
    batch: bytes
    vectors: int
    sender: bytes
    payload: bytes
    dimension: bytes
    raw: bytes
    trace: bytes
    size: int


def _experience(
    name: str, state: Sequence[bytes], entries: Sequence[_Entry], rows: bool
) -> Experience:
    """Return the experience of these entries; `state` has the detector's fields of `ENTRIES`."""
    uid, cursor, generation, champion, dimension, nonce = (value.decode() for value in state)
    raw: tuple[RawBatch, ...] = ()
    if rows:
        read = [_batch(entry) for entry in entries]
        raw = tuple(read) if any(entry.raw for entry in entries) else ()
    joined = b"" if raw else b"".join(entry.payload for entry in entries)
    return Experience(
        name=name,
        uid=uid,
        generation=int(generation),
        champion=int(champion) if champion else None,
        first=cursor,
        last=entries[-1].id.decode(),
        vectors=np.frombuffer(joined, dtype="<f4").reshape(-1, int(dimension)),
        parts=tuple(
            BatchPart(entry.batch.decode(), entry.sender.decode("utf-8", "replace"), entry.vectors)
            for entry in entries
        ),
        champion_nonce=nonce,
        raw=raw,
        bytes=sum(entry.size for entry in entries),
        traces=distinct_traces(entry.trace.decode() for entry in entries),
    )


def _batch(entry: _Entry) -> RawBatch:
    """Return the batch of an entry. Raises DamagedBuffer."""
    try:
        n, d = entry.vectors, int(entry.dimension)
        whole = n > 0 and (entry.raw or entry.size == 4 * n * d)
        batch = RawBatch.read(entry.payload, n, d, raw=bool(entry.raw)) if whole else None
    except (ValueError, msgspec.DecodeError):
        batch = None
    if batch is None:
        raise DamagedBuffer(
            f"The stored batch {entry.id.decode()} is damaged. Discard the experience, and send "
            "its batches again."
        )
    return batch


def _judged(
    payload: NDArray[np.float32], verdict: AdmissionVerdict | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, Any]]:
    """Return the rows to buffer, those to hold back, and the script's arguments about them."""
    kept, held_back = payload, payload[:0]
    triage: dict[str, float] = {}
    if verdict is not None:
        kept, held_back = payload[verdict.kept], payload[verdict.held]
        triage = {**verdict.shares, "thinned": len(payload) - len(kept) - len(held_back)}
    batch = secrets.token_hex(8)
    answer = {
        "batch_id": batch, "accepted": len(kept), "quarantined": len(held_back), "triage": triage
    }  # fmt: skip
    return (
        kept,
        held_back,
        {
            "batch": batch,
            "vectors": len(kept),
            "held": len(held_back),
            "dimension": payload.shape[1],
            "answer": orjson.dumps(answer),
            "thinned": int(triage.get("thinned", 0)),
            "novel": verdict.novel if verdict else 0,
            "judged_by": verdict.version if verdict else "",
            "reason": verdict.reason if verdict else "",
        },
    )


def _answer_keys(keys: Keys, idempotency_key: str | None, sender: str) -> dict[str, str]:
    """Return the keys under which the answer to a batch is stored; `former` is an older form."""
    if idempotency_key is None:
        return {}
    return {
        "known": keys.idempotency(idempotency_key, sender),
        "former": keys.idempotency(idempotency_key),
        "answers": keys.answers(suffix(sender)),
    }


async def _digest_of(matrix: NDArray[Any]) -> str:
    """Return the sha256 of a matrix's shape and of its values as float32."""
    values = np.ascontiguousarray(matrix, dtype="<f4").tobytes()
    shape = "x".join(map(str, matrix.shape))

    def digest() -> str:
        return hashlib.sha256(f"{shape}:".encode() + values).hexdigest()

    # A large matrix takes tens of milliseconds. A thread keeps the event loop free meanwhile.
    return await asyncio.to_thread(digest) if len(values) > 2**20 else digest()
