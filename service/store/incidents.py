"""The incidents of every detector, their rows, people's decisions, and the bounded history.

One worker follows a detector. One fenced step writes all its changes together with its place in the
reports. So if the worker dies, the next worker counts every report exactly once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson
from redis.asyncio import Redis

from service.domain.history import Buckets, unpack
from service.domain.incident import (
    DismissedPattern,
    Incident,
    IncidentDecision,
    IncidentRule,
    KeptRow,
    Verdict,
)
from service.domain.incident_fold import Fold
from service.domain.webhook_message import Message
from service.store.connection import ask
from service.store.incidents_lua import ADD_PATTERNS, DECIDE, DELETE_PATTERNS, SAVE
from service.store.leases import Lease, under_lease
from service.store.lua import audit_fields
from service.store.redis_keys import Keys

FORMAT = 1
INCIDENTS_KEPT = 1000
INCIDENTS_WITH_ROWS = 200  # the number of latest incidents that keep their rows
ROWS_BYTES = 64 * 1024  # the most bytes of one incident's rows
PATTERNS_KEPT = 100  # above it the sender with the most patterns loses its oldest one
MESSAGES_KEPT = 1000


class FollowedState(msgspec.Struct, frozen=True):
    """The worker's state of a detector: the last report that it counted, and the fold."""

    after: str
    fold: Fold
    format: int = FORMAT


class StepChanges(msgspec.Struct, frozen=True):
    """The changes that one step of the worker writes beside the worker's memory.

    `incidents` pairs each incident with its rows; None means that the rows have not changed.
    `buckets` maps the name of a chunk to the chunk; None means that the chunk is deleted.
    """

    incidents: Sequence[tuple[Incident, Sequence[KeptRow] | None]] = ()
    buckets: Mapping[str, bytes | None] = {}
    messages: Sequence[Message] = ()
    rule: IncidentRule | None = None
    opened: int = 0
    closed: int = 0
    paging: int = 0
    unreported: int = 0


class IncidentWithDecision(NamedTuple):
    """An incident, and the decision about it or None."""

    incident: Incident
    decision: IncidentDecision | None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the decision, None if there is no decision or it was withdrawn."""
        return self.decision.verdict if self.decision else None


class Decisions(NamedTuple):
    """The number of the latest decision, and the end of the mute in seconds since 1970."""

    number: int
    muted_until: float


class Incidents:
    """The incidents of all detectors."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def load(self, name: str) -> FollowedState | None:
        """Return what the worker saved last; None if nothing is saved in this format."""
        packed = await ask(self._redis, self._redis.get(Keys(name).followed))
        if packed is None:
            return None
        try:
            state = msgspec.msgpack.decode(packed, type=FollowedState)
        except msgspec.MsgspecError:
            return None
        return state if state.format == FORMAT else None

    async def save(self, lease: Lease, followed: FollowedState, changes: StepChanges) -> None:
        """Write one step; raises Fenced once the lease (role `monitor`) is lost."""
        payload: list[bytes] = []

        def place(data: bytes) -> int:
            payload.append(data)
            return len(payload) - 1

        packed = {
            "incidents": [
                [incident.id, _number(incident), place(msgspec.msgpack.encode(incident))]
                for incident, _ in changes.incidents
            ],
            "rows": [
                [incident.id, place(_packed_rows(rows))]
                for incident, rows in changes.incidents
                if rows is not None
            ],
            "buckets": [[chunk, place(data)] for chunk, data in changes.buckets.items() if data],
            "gone": [chunk for chunk, data in changes.buckets.items() if not data],
            "messages": [place(msgspec.msgpack.encode(message)) for message in changes.messages],
        }
        args = {
            "changes": orjson.dumps(packed),
            "rule": msgspec.json.encode(changes.rule),
            "paging": changes.paging,
            "unreported": changes.unreported,
            "opened": changes.opened,
            "closed": changes.closed,
            "after": followed.after,
            "incidents_kept": INCIDENTS_KEPT,
            "rows_kept": INCIDENTS_WITH_ROWS,
            "messages_kept": MESSAGES_KEPT,
        }
        data = (msgspec.msgpack.encode(followed), *payload)
        await under_lease(self._redis, SAVE, lease, args, data)

    async def all(self, name: str) -> list[IncidentWithDecision]:
        """Return all kept incidents, newest first."""
        keys = Keys(name)
        pipe = self._redis.pipeline(transaction=False).zrevrange(keys.incident_order, 0, -1)
        pipe.hgetall(keys.incidents).hgetall(keys.incident_decisions)
        order, incidents, decisions = await ask(self._redis, pipe.execute())
        return [
            with_decision(incidents[incident_id], decisions.get(incident_id))
            for incident_id in order
            if incident_id in incidents
        ]

    async def get(self, name: str, incident: str) -> IncidentWithDecision | None:
        """Return one incident; None if it is not kept."""
        keys = Keys(name)
        pipe = self._redis.pipeline(transaction=False).hget(keys.incidents, incident)
        pipe.hget(keys.incident_decisions, incident)
        packed, decision = await ask(self._redis, pipe.execute())
        return with_decision(packed, decision) if packed else None

    async def rows(self, name: str, incidents: Sequence[str]) -> dict[str, list[KeptRow]]:
        """Return the kept rows of each of `incidents`, worst first."""
        if not incidents:
            return {}
        key = Keys(name).incident_rows
        packs = await ask(self._redis, self._redis.hmget(key, list(incidents)))
        return {
            incident: msgspec.msgpack.decode(packed, type=list[KeptRow]) if packed else []
            for incident, packed in zip(incidents, packs, strict=True)
        }

    async def decide(
        self, name: str, incident: str, decision: IncidentDecision, pattern: DismissedPattern | None
    ) -> bool:
        """Write a person's decision; return False if the incident is not kept."""
        args = {
            "incident": incident,
            "most": PATTERNS_KEPT,
            "who": decision.who,
            "audited": audit_fields(
                "decided", decision.who, decision.why, incident=incident, verdict=decision.verdict
            ),
        }
        data = (
            msgspec.msgpack.encode(decision),
            msgspec.msgpack.encode(pattern) if pattern else b"",
        )
        return bool(await DECIDE(self._redis, Keys(name), args, data))

    async def add_dismissed_patterns(self, name: str, patterns: Sequence[DismissedPattern]) -> None:
        """Store the patterns of events labelled normal. Rows that they cover page nobody."""
        if not patterns:
            return
        pairs = [
            part
            for pattern in patterns[-PATTERNS_KEPT:]
            for part in (pattern.id.encode(), msgspec.msgpack.encode(pattern))
        ]
        await ADD_PATTERNS(self._redis, Keys(name), {"most": PATTERNS_KEPT}, pairs)

    async def dismissed_patterns(self, name: str) -> list[DismissedPattern]:
        """Return the patterns of dismissed incidents and of events labelled normal."""
        packs = await ask(self._redis, self._redis.hvals(Keys(name).dismissed_patterns))
        return [msgspec.msgpack.decode(packed, type=DismissedPattern) for packed in packs]

    async def delete_patterns(self, name: str, ids: Sequence[str]) -> int:
        """Delete dismissed patterns; return how many existed. Rows like them page again."""
        data = [pattern.encode() for pattern in ids]
        return int(await DELETE_PATTERNS(self._redis, Keys(name), data=data)) if data else 0

    async def decided(self, name: str, incidents: Sequence[str]) -> set[str]:
        """Return those of `incidents` that are dismissed or confirmed."""
        if not incidents:
            return set()
        packs = await ask(
            self._redis, self._redis.hmget(Keys(name).incident_decisions, list(incidents))
        )
        pairs = zip(incidents, map(_decision, packs), strict=True)
        return {incident for incident, decision in pairs if decision and decision.verdict}

    async def decisions(self, name: str) -> Decisions:
        """Return a value that changes with every decision and every mute."""
        key = Keys(name).state
        count, until = await ask(self._redis, self._redis.hmget(key, ["decisions", "muted_until"]))
        return Decisions(int(count or 0), float(until or 0) / 1000)

    async def unfinished(self, name: str) -> int:
        """Return how many incidents are open, including those that page nobody."""
        fields = ["incidents_opened", "incidents_closed"]
        opened, closed = await ask(self._redis, self._redis.hmget(Keys(name).state, fields))
        return int(opened or 0) - int(closed or 0)

    async def chunk_names(self, name: str) -> list[str]:
        """Return the names of the history's chunks."""
        names = await ask(self._redis, self._redis.hkeys(Keys(name).buckets))
        return [chunk.decode() for chunk in names]

    async def buckets(self, name: str, chunks: Sequence[str] | None = None) -> dict[str, Buckets]:
        """Return the buckets of `chunks`, by the chunk's name. None means all chunks."""
        key = Keys(name).buckets
        if chunks is None:
            packs = await ask(self._redis, self._redis.hgetall(key))
            return {chunk.decode(): unpack(packed) for chunk, packed in packs.items()}
        if not chunks:
            return {}
        packed_buckets = await ask(self._redis, self._redis.hmget(key, list(chunks)))
        return {
            chunk: unpack(packed) if packed else {}
            for chunk, packed in zip(chunks, packed_buckets, strict=True)
        }


def _number(incident: Incident) -> int:
    """Return the number of an incident. Incidents are sorted by this number."""
    return int(incident.id[1:].partition("-")[0])


def with_decision(packed: bytes, decision: bytes | None) -> IncidentWithDecision:
    """Return an incident and the decision about it from what the store keeps of them."""
    incident = msgspec.msgpack.decode(packed, type=Incident)
    return IncidentWithDecision(incident, _decision(decision))


def _decision(packed: bytes | None) -> IncidentDecision | None:
    return msgspec.msgpack.decode(packed, type=IncidentDecision) if packed else None


def _packed_rows(rows: Sequence[KeptRow]) -> bytes:
    """Return the rows packed for the store; the last rows are left out above ROWS_BYTES."""
    kept: list[KeptRow] = []
    size = 0
    for row in rows:
        size += len(row.vector) + 200
        if kept and size > ROWS_BYTES:
            break
        kept.append(row)
    return msgspec.msgpack.encode(kept)
