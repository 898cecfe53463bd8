"""Versions in the store: they are numbered and immutable, and one of them is the champion.

Only the scripts of `registry_lua` and `revocations_lua` number versions and move the champion. A
promotion also acknowledges its experience: version, pointer, history and cursor change together or
not at all.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
from redis.asyncio import Redis

from service.domain.experience import Experience, packed
from service.domain.generation import Generation
from service.domain.version_record import NewRecord, StoredVersion, VersionRecord, stored_version
from service.problems import (
    Conflict,
    Gone,
    PreconditionFailed,
    UnknownDetector,
    Unprocessable,
    no_such,
)
from service.store.connection import ask
from service.store.erasure import mark_erased
from service.store.leases import Lease, under_lease
from service.store.lua import audit_fields
from service.store.redis_keys import Keys
from service.store.registry_lua import CHAMPION, FORGET, IMPORT, PARK, PIN, PRUNE, SETTLE
from service.timestamps import rfc3339

FORMAT = 1
PIN_SECONDS = 3600  # how long a pinned artifact is kept after its last use
RECORDS_KEPT = 10_000
PIECE_BYTES = 4 * 2**20  # bytes of an artifact that are read at once


class Registry:
    """The versions of all detectors."""

    def __init__(self, redis: Redis, *, versions_kept: int = 5) -> None:
        self._redis: Any = redis
        self._versions_kept = versions_kept

    async def settle(
        self,
        lease: Lease,
        experience: Experience,
        artifact: bytes,
        record: NewRecord,
        *,
        seconds: float,
        promoted: bool = True,
    ) -> int:
        """Record the candidate, and promote it or park its experience; return its number.

        A promotion acknowledges the experience in the same step. `record` holds the version record
        without the fields that the store adds, and the reasons of the gate. Raises Fenced and
        changes nothing if the lease is lost, or if the champion or the cursor has moved since
        `experience` was taken.
        """
        outcome = "promoted" if promoted else "rejected"
        digest, reasons = hashlib.sha256(artifact).hexdigest(), list(record.reasons)
        labelled = {"labelled": record.labelled} if record.labelled else {}
        args = _experience_arguments(experience) | {
            "generation": experience.generation,
            "champion_nonce": experience.champion_nonce,
            "nonce": secrets.token_hex(8),
            "outcome": outcome,
            "record": record.written(digest, artifact, experience),
            "sha256": digest,
            "ending": _without_brace({"reasons": reasons, "seconds": seconds} | labelled),
            "reason": orjson.dumps("; ".join(reasons)),
            "audited": audit_fields(
                outcome, record.who, "; ".join(reasons) or "retraining", sha256=digest
            ),
            "context": experience.chosen.written() if experience.chosen else "",
            "dimension": experience.vectors.shape[1],
        }
        data, key = (artifact, packed(experience.parts)), Keys(lease.name).artifact(digest)
        reply = await under_lease(self._redis, SETTLE, lease, args, data, artifact=key)
        return int(reply[1])

    async def park(
        self, lease: Lease, experience: Experience, reason: str, *, seconds: float
    ) -> str:
        """Park an experience whose trainings failed, without a version; return its quarantine id.

        Later batches can then be learned. Raises Fenced if the lease is lost, or if the cursor has
        moved since `experience` was taken.
        """
        args = _experience_arguments(experience) | {
            "reason": orjson.dumps(reason),
            "ending": _without_brace({"reasons": [reason], "seconds": seconds}),
            "audited": audit_fields("parked", "worker", reason, vectors=experience.n),
        }
        reply = await under_lease(self._redis, PARK, lease, args)
        return str(reply[1].decode())

    async def import_version(self, name: str, artifact: bytes, record: NewRecord) -> int:
        """Store a version trained elsewhere, without making it champion; return its number.

        The caller has verified `artifact`. If the detector has no dimension yet, it gets that of
        `record`. `record.learned` is the number of vectors that the version's lineage consumed.
        Raises UnknownDetector, and Unprocessable if the two dimensions differ.
        """
        keys, digest = Keys(name), hashlib.sha256(artifact).hexdigest()
        args = {
            "record": record.written(digest, artifact, None),
            "sha256": digest,
            "learned": record.learned or 0,
            "dimension": record.dimension or "",
            "context": record.context.written() if record.context else "",
            "audited": audit_fields("imported", record.who, "by hand", sha256=digest),
        }
        reply = await IMPORT(self._redis, keys, args, (artifact,), artifact=keys.artifact(digest))
        if reply[0] == b"unknown":
            raise UnknownDetector()
        if reply[0] == b"dimension":
            raise Unprocessable(f"The detector's dimension is {reply[1]}, not the version's.")
        return int(reply[1])

    async def set_champion(
        self,
        name: str,
        number: int,
        *,
        expected_generation: int | None = None,
        who: str = "",
        why: str = "",
    ) -> int:
        """Make version `number` the champion by hand; return the generation.

        The generation stays the same if the version is the champion already. If the version was
        rejected, its parked experience counts as consumed from now on. Raises UnknownDetector,
        Unknown (version), PreconditionFailed, Gone (artifact pruned) and Conflict (revoked).
        """
        args = {
            "version": number,
            "expected": "" if expected_generation is None else expected_generation,
            "nonce": secrets.token_hex(8),
            "why": _without_brace({"who": who, "why": why}),
            "audited": audit_fields("champion", who, why),
        }
        outcome, *rest = await CHAMPION(self._redis, Keys(name), args)
        if outcome == b"unknown":
            raise UnknownDetector()
        if outcome == b"version":
            raise no_such("version", ".../versions")
        if outcome == b"moved":
            raise PreconditionFailed(
                f"The generation is now {rest[0]}. Read the detector again, then repeat the "
                "request.",
                generation=rest[0],
            )
        if outcome == b"revoked":
            raise Conflict(f"Version {number} learned from revoked data, so it cannot serve.")
        if outcome == b"pruned":
            raise Gone()
        return int(rest[0])

    async def record(self, name: str, number: int) -> StoredVersion | None:
        """Return the record of a version; None if the version does not exist."""
        return next(iter(await self._records(name, [number])), None)

    async def records(
        self, name: str, *, limit: int = 1000, before: int | None = None
    ) -> list[StoredVersion]:
        """Return the records of the latest `limit` versions below number `before`, oldest first."""
        last = int(await ask(self._redis, self._redis.hget(Keys(name).state, "last_version")) or 0)
        last = last if before is None else min(last, before - 1)
        return await self._records(name, list(range(max(1, last - limit + 1), last + 1)))

    async def _records(self, name: str, numbers: list[int]) -> list[StoredVersion]:
        if not numbers:
            return []
        keys = Keys(name)
        names = list(map(str, numbers))
        pipe = self._redis.pipeline(transaction=False).hget(keys.state, "champion")
        pipe.hmget(keys.versions, names).zmscore(keys.promoted, names)
        pipe.hmget(keys.artifacts, names).hmget(keys.revoked, names)
        champion, texts, *columns = await ask(self._redis, pipe.execute())
        rows = zip(texts, *columns, strict=True)
        return [
            stored_version(text, int(champion or 0), moved, digest, revoked)
            for text, moved, digest, revoked in rows
            if text
        ]

    async def digests(self, name: str, numbers: Sequence[int]) -> dict[int, str | None]:
        """Return the sha256 of each version's artifact; None for an artifact that is not kept."""
        question = self._redis.hmget(Keys(name).artifacts, [str(number) for number in numbers])
        stored = await ask(self._redis, question)
        return {
            number: digest.decode() if digest else None
            for number, digest in zip(numbers, stored, strict=True)
        }

    async def intact(self, name: str, record: VersionRecord) -> bool:
        """Return whether the version's artifact is stored, and is the one that was recorded."""
        data = await self.artifact(name, record.version)
        if data is None:
            return False
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        return record.sha256 in (None, digest)

    async def artifact(self, name: str, number: int) -> bytes | None:
        """Return the version's artifact; None if the artifact was pruned or never existed."""
        keys, client = Keys(name), self._redis
        digest = await ask(client, client.hget(keys.artifacts, str(number)))
        if digest is None:
            return None
        # Each piece is read within the deadline. An artifact never changes; it can only be deleted.
        key, data = keys.artifact(digest.decode()), bytearray()
        while len(data) % PIECE_BYTES == 0:
            end = len(data) + PIECE_BYTES - 1
            piece = await ask(client, client.getrange(key, len(data), end))
            if not piece:
                break
            data += piece
        return bytes(data) or None

    async def history(self, name: str, *, limit: int = 1000) -> list[Generation]:
        """Return the latest `limit` moves of the champion pointer, oldest first."""
        rows = await ask(self._redis, self._redis.lrange(Keys(name).history, -limit, -1))
        moves = [orjson.loads(row) for row in rows]
        return [
            msgspec.convert(move | {"at": rfc3339(move["at"] / 1000)}, Generation) for move in moves
        ]

    async def pin(self, name: str, number: int) -> None:
        """Keep the version's artifact for another hour."""
        await PIN(self._redis, Keys(name), {"version": number, "seconds": PIN_SECONDS})

    async def prune(self, name: str) -> list[int]:
        """Delete the artifacts that are no longer needed; return the numbers of their versions.

        These versions keep their artifact: the champion, its parent and its anchor, the last k
        champions, the last k imported versions, versions pinned within the last hour, and rejected
        versions whose experience is parked. A revoked version does not count among the last k.
        """
        keys = Keys(name)
        pipe = self._redis.pipeline(transaction=False).hgetall(keys.artifacts)
        pipe.hmget(keys.state, ["champion", "last_version"]).zrevrange(keys.promoted, 0, -1)
        pipe.hkeys(keys.parked).hkeys(keys.revoked)
        reply = await ask(self._redis, pipe.execute())
        artifacts, (champion, last), promoted, parked, revoked = reply
        marked = set(revoked)
        latest = [number for number in promoted if number not in marked]
        digests = {int(number): digest.decode() for number, digest in artifacts.items()}
        records = {r.record.version: r for r in await self._records(name, sorted(digests))}
        kept = {int(number) for number in (*latest[: self._versions_kept], champion or 0)}
        kept |= {int(entry[1:]) for entry in parked if entry.startswith(b"v")}
        if current := records.get(int(champion or 0)):
            kept |= {current.record.parent or 0, current.record.anchor_of_successors}
        imported = [
            number
            for number, record in records.items()
            if record.record.outcome == "imported" and record.state != "revoked"
            and number not in kept
        ]  # fmt: skip
        kept |= set(imported[-self._versions_kept :])
        pruned = sorted(set(digests) - kept)
        if pruned:  # with some strategies an artifact holds learned vectors
            await mark_erased(self._redis)
        removed = []
        for number in pruned:
            args = {"version": number, "sha256": digests[number], "seconds": PIN_SECONDS}
            if await PRUNE(self._redis, keys, args, artifact=keys.artifact(digests[number])):
                removed.append(number)
        if int(last or 0) > RECORDS_KEPT:
            await FORGET(self._redis, keys, {"latest": int(last) - RECORDS_KEPT})
        return removed


def _experience_arguments(experience: Experience) -> dict[str, object]:
    return {
        "uid": experience.uid,
        "cursor": experience.first,
        "last": experience.last,
        "vectors": experience.n,
        "bytes": experience.bytes,
    }


def _without_brace(document: Mapping[str, object]) -> bytes:
    """Return JSON without its opening brace; the script puts its own fields in front."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)[1:]
