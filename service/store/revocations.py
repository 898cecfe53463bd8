"""Un-learning: removes all rows of the target, which is one batch or one API key.

Every version that learned such rows is marked as revoked, and so is every version built on it. A
revoked version never serves again. The latest clean version that is kept serves instead. All stored
rows of the target are discarded. The other rows that revoked versions learned go back to the
buffer if they are still stored.

The first step marks the versions and moves the champion. The later steps move the vectors. After
each step every vector is in exactly one place. The whole operation holds a worker's lease: no
training starts, and the result of a running training is refused. If the operation is interrupted,
run it again: it continues.
"""

import asyncio
import secrets
from typing import Any

import msgspec
import orjson
from msgspec.structs import replace
from redis.asyncio import Redis

from service import crash_points
from service.domain.experience import BatchPart, unpacked
from service.domain.provenance import (
    RevocationTarget,
    VectorCounts,
    VersionOrigin,
    position,
    ranges,
    within,
)
from service.domain.revocation_plan import (
    DetectorVersions,
    RevocationPlan,
    RevocationRequest,
    Revoked,
)
from service.domain.version_record import read_mark, read_record
from service.problems import Conflict, Unknown, UnknownDetector
from service.store.connection import ask
from service.store.due_index import DueIndex
from service.store.erasure import mark_erased
from service.store.leases import Lease, Leases, under_lease
from service.store.lua import Fenced, audit_fields
from service.store.redis_keys import Keys
from service.store.revocations_lua import MARK, SCAN, SWEEP

LEASE_SECONDS = 15.0  # renewed by each step; after a crash a worker waits this long
STEP_BYTES = 4 * 2**20
STEP_ENTRIES = 1000
_ROUNDS = 5  # the most plans that one call makes while other processes change the detector
_RECORDS = 100  # records that are read at once
_POINT = "api.revoking"  # passed before each step and after the last one
PLACES = ("buffered", "quarantined", "parked", "kept")


class Revocations:
    """Makes a detector un-learn a batch or an API key."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._leases = Leases(redis)
        self._due = DueIndex(redis)

    async def plan(
        self, name: str, target: RevocationTarget, *, labelled: bool = False
    ) -> RevocationPlan:
        """Return the effect that revoking `target` would have now; the store is not changed.

        Raises UnknownDetector. Raises Unknown if no row of `target` is stored or was learned, but
        not if it is `labelled`: then the target is a sender with labels or dismissals.
        """
        now = await self._versions_now(Keys(name))
        marked, fresh = now.reached_by(target)
        again = ranges(origin for origin in now.origins if origin.number in fresh)
        others = VectorCounts()
        for number in sorted(fresh - set(now.marks)):
            for part in now.parts.get(number, ()):
                if not target.includes(part):
                    others.add(part)
        discarded, relearned = dict.fromkeys(PLACES, 0), VectorCounts()
        for place, entry, part in await self._entries(Keys(name), now):
            if target.includes(part):
                discarded[place] += part.vectors
            elif place == "kept" and within(entry, again):
                relearned.add(part)
        if not (marked or labelled or any(discarded.values())):
            raise Unknown(f"No row of this {target.kind} is stored or was learned.")
        return RevocationPlan(
            now.uid, now.generation, now.last_version, now.champion, now.clean(marked),
            tuple(sorted(marked)), tuple(again), discarded, others, relearned,
            not marked.isdisjoint(now.promoted),
        )  # fmt: skip

    async def revoke(self, name: str, request: RevocationRequest) -> Revoked:
        """Revoke the target that `request` names; return the result.

        Raises UnknownDetector, and Unknown if no row of the target is stored or was learned.
        Raises Conflict if no clean version is left, and if another process took the lease.
        """
        lease = await self._leases.seize(name, LEASE_SECONDS)
        if lease is None:
            raise UnknownDetector()
        try:
            await mark_erased(self._redis)
            plan, generation = await self._mark_versions(lease, request)
            discarded, relearned = await self._move_vectors(lease, request.target, plan)
        except Fenced:
            raise Conflict(
                "Another process took the detector's lease. Repeat the request; it continues."
            ) from None
        finally:
            await self._leases.release(lease)
            await self._due.refresh(name)
        return replace(
            plan.foreseen(),
            dry_run=False,
            generation=generation,
            discarded=discarded,
            lost=plan.others.total(less=relearned),
            relearned=relearned.total(),
        )

    async def _mark_versions(
        self, lease: Lease, request: RevocationRequest
    ) -> tuple[RevocationPlan, int]:
        """Mark the versions and move the champion; return the plan used, and the generation."""
        target = request.target
        mark = {target.kind: target.id, "who": request.who, "why": request.why}
        for _ in range(_ROUNDS):
            plan = await self.plan(lease.name, target, labelled=request.labelled)
            plan.check(request)
            foreseen = plan.foreseen()
            why = {"who": request.who, "why": f"revoked {target.kind} {target.id}"}
            about = {
                "versions": foreseen.versions,
                "discarded": foreseen.discarded,
                "lost": msgspec.to_builtins(foreseen.lost),
                "relearned": msgspec.to_builtins(foreseen.relearned),
            }
            args = {
                "uid": plan.uid,
                "generation": plan.generation,
                "last_version": plan.last_version,
                "to": plan.next_champion or "",
                "versions": orjson.dumps(plan.marked),
                "mark": orjson.dumps(mark)[1:],
                "why": orjson.dumps(why)[1:],
                "nonce": secrets.token_hex(8),
                "decision": int(request.decision),
                "who": request.who,
                "audited": audit_fields(
                    "revoked", request.who, request.why, **{target.kind: target.id}, **about
                ),
            }
            crash_points.passage(_POINT)
            outcome, *rest = await under_lease(self._redis, MARK, lease, args)
            if outcome == b"marked":
                return plan, int(rest[0])
        raise Conflict("The detector changed several times meanwhile. Repeat the request.")

    async def _move_vectors(
        self, lease: Lease, target: RevocationTarget, plan: RevocationPlan
    ) -> tuple[dict[str, int], VectorCounts]:
        """Discard the target's rows; move the other stored rows of the plan to the buffer."""
        keys, discarded, relearned = Keys(lease.name), dict.fromkeys(PLACES, 0), VectorCounts()
        # Held rows come first: if a person releases one meanwhile, it is found at the stream's end.
        for kind, entries in (("held", keys.held), ("stream", keys.stream)):
            at: bytes | str = "0-0"
            done = False
            while not done:
                crash_points.passage(_POINT)
                args = {
                    "milliseconds": round(LEASE_SECONDS * 1000),
                    "place": kind,
                    "after": at,
                    "field": "batch" if target.kind == "batch" else "sender",
                    "target": target.id,
                    "again": orjson.dumps(plan.again),
                    "most": STEP_ENTRIES,
                    "most_bytes": STEP_BYTES,
                }
                reply = await under_lease(self._redis, SWEEP, lease, args, entries=entries)
                done, at = reply[0] == b"done", reply[1]
                for place, vectors in zip(PLACES, reply[2:6], strict=True):
                    discarded[place] += vectors
                for batch, sender, vectors in reply[6]:
                    relearned.add(_part(batch, sender, vectors))
        crash_points.passage(_POINT)
        return discarded, relearned

    async def _versions_now(self, keys: Keys) -> DetectorVersions:
        pipe = self._redis.pipeline(transaction=True)
        pipe.hmget(keys.state, ["uid", "generation", "last_version", "champion", "cursor"])
        pipe.hvals(keys.parked).zrevrange(keys.promoted, 0, -1)
        pipe.hkeys(keys.artifacts).hgetall(keys.revoked)
        state, parked, promoted, artifacts, marks = await ask(self._redis, pipe.execute())
        if state[0] is None:
            raise UnknownDetector()
        uid, generation, last, champion, cursor = (value.decode() for value in state)
        origins, parts = await self._origins(keys, int(last))
        return DetectorVersions(
            uid, int(generation), int(last), int(champion or 0) or None, cursor,
            [(experience["first"], experience["last"]) for experience in map(orjson.loads, parked)],
            [int(number) for number in promoted],
            {int(number) for number in artifacts},
            {int(number): read_mark(mark) for number, mark in marks.items()},
            origins, parts,
        )  # fmt: skip

    async def _origins(
        self, keys: Keys, last: int
    ) -> tuple[list[VersionOrigin], dict[int, list[BatchPart]]]:
        """Return the lineage of every version, and the parts of batches that it learned."""
        origins: list[VersionOrigin] = []
        parts: dict[int, list[BatchPart]] = {}
        for start in range(1, last + 1, _RECORDS):
            numbers = [str(n) for n in range(start, min(start + _RECORDS, last + 1))]
            pipe = self._redis.pipeline(transaction=False)
            pipe.hmget(keys.versions, numbers).hmget(keys.sources, numbers)
            texts, packs = await ask(self._redis, pipe.execute())
            origins += [VersionOrigin.of(read_record(text)) for text in texts if text]
            for number, pack in zip(numbers, packs, strict=True):
                if pack:
                    parts[int(number)] = await asyncio.to_thread(unpacked, pack)
        return origins, parts

    async def _entries(self, keys: Keys, now: DetectorVersions) -> list[tuple[str, str, BatchPart]]:
        """Return the place, the entry id and the part of a batch that each entry holds."""
        entries = [
            ("quarantined", entry, part) for entry, part in await self._entries_of_stream(keys.held)
        ]
        cursor = position(now.cursor)
        for entry, part in await self._entries_of_stream(keys.stream):
            if position(entry) > cursor:
                place = "buffered"
            else:
                place = "parked" if within(entry, now.waiting) else "kept"
            entries.append((place, entry, part))
        return entries

    async def _entries_of_stream(self, key: str) -> list[tuple[str, BatchPart]]:
        """Return the id and the batch part of every entry of a stream, without the vectors."""
        entries: list[tuple[str, BatchPart]] = []
        at: bytes | str = "0-0"
        bounds = {"most": STEP_ENTRIES, "most_bytes": STEP_BYTES}
        while rows := await SCAN(self._redis, {"entries": key}, {"after": at, **bounds}):
            at = rows[-1][0]
            entries += [(row[0].decode(), _part(*row[1:])) for row in rows]
        return entries


def _part(batch: bytes, sender: bytes, vectors: int) -> BatchPart:
    return BatchPart(batch.decode(), sender.decode("utf-8", "replace"), vectors)
