"""The latest anomalies of each detector, and the labels that people gave."""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from redis.asyncio import Redis

from models.parts.labels import Labels
from service.domain.detector import Detector
from service.domain.event import Event, Label
from service.store.connection import ask
from service.store.lua import AUDIT, NOW, READ, said
from service.store.redis_keys import IDEMPOTENCY_SECONDS, NOTIFY, Keys
from service.store.script import NamedScript
from service.store.streams import APPEND, bounded

LABELS_READ = 1000  # the latest: those that decide a threshold, in every process the same
_PAGE = 100  # labels in one answer of the store: 25 MB of the widest vectors


# Where labels decide the threshold, new ones are a change of the config: every process must see it.
_LABEL = NamedScript(
    READ
    + AUDIT
    + NOW
    + """
local held = read(KEYS.state, STATE.uid, STATE.config)
if held[STATE.uid] ~= ARGS.uid then return 0 end
if KEYS.known and redis.call('GET', KEYS.known) == ARGS.uid then return 1 end
for i = DATA.entries, #ARGV do
  redis.call('XADD', KEYS.labels, 'MAXLEN', ARGS.most, '*', ENTRY.packed, ARGV[i])
end
if KEYS.known then redis.call('SET', KEYS.known, ARGS.uid, 'EX', ARGS.seconds) end
if cjson.decode(held[STATE.config])['threshold']['labels'] then
  local to = redis.call('HINCRBY', KEYS.state, STATE.revision, 1)
  redis.call('HSET', KEYS.state, STATE.config_nonce, ARGS.nonce, STATE.changed, now)
  audit(KEYS.audit, now, to - 1, to, ARGS.audited)
  redis.call('PUBLISH', ARGS.channel, ARGS.name)
end
return 1
""",
    keys="state labels audit known?",
    args="uid most seconds nonce channel name audited",
    data="*entries",
)


class Events:
    """The latest `events_kept` anomalies and `labels_kept` labels of every detector."""

    def __init__(self, redis: Redis, *, events_kept: int = 1000, labels_kept: int = 10_000) -> None:
        self._redis: Any = redis
        self._events_kept = events_kept
        self._labels_kept = labels_kept

    async def append(self, name: str, uid: str, events: Sequence[Event]) -> list[str]:
        """Keep `events`, for that incarnation; return their ids, [] once it is gone."""
        keys, entries = Keys(name), list(map(_pack, events))[-self._events_kept :]
        if not entries:
            return []
        kept = bounded(self._events_kept, max(map(len, entries)))
        args = {"uid": uid, "most": kept}
        ids = await APPEND(self._redis, keys, args, entries, stream=keys.events)
        return [entry.decode() for entry in ids]

    async def latest(self, name: str, *, limit: int = 100) -> list[Event]:
        """Return the latest events, newest first."""
        rows = await ask(self._redis, self._redis.xrevrange(Keys(name).events, count=limit))
        return [Event(id=row.decode(), **_unpack(entry[b"e"])) for row, entry in rows]

    async def get(self, name: str, ids: Iterable[str]) -> dict[str, Event]:
        """Return those of the events `ids` that are still kept."""
        wanted = [event for event in ids if _is_id(event)]
        pipe = self._redis.pipeline(transaction=False)
        for event in wanted:
            pipe.xrange(Keys(name).events, event, event)
        replies = await ask(self._redis, pipe.execute())
        return {
            event: Event(id=event, **_unpack(rows[0][1][b"e"]))
            for event, rows in zip(wanted, replies, strict=True)
            if rows
        }

    async def label(
        self,
        name: str,
        uid: str,
        labels: Sequence[Label],
        *,
        idempotency_key: str | None = None,
        who: str = "",
    ) -> bool:
        """Keep `labels` for that incarnation, once for each key; return False when it is gone.

        Under the threshold policy `labels` that adds one to the config's revision, and an entry to
        the audit trail.
        """
        keys, entries = Keys(name), list(map(_pack, labels))[-self._labels_kept :]
        if not entries:
            return False
        known: dict[str, str] = {}
        if idempotency_key is not None:
            known = {"known": keys.labels_idempotency(idempotency_key)}
        args = {
            "uid": uid,
            "most": bounded(self._labels_kept, max(map(len, entries))),
            "seconds": IDEMPOTENCY_SECONDS,
            "nonce": secrets.token_hex(8),
            "channel": NOTIFY,
            "name": name,
            "audited": said("labelled", who, "labels set the threshold", labels=len(entries)),
        }
        return bool(await _LABEL(self._redis, keys, args, entries, **known))

    async def labels(self, name: str, *, limit: int = LABELS_READ) -> list[Label]:
        """Return the latest labels, newest first."""
        found: list[Label] = []
        latest = "+"
        while len(found) < limit:
            page = min(limit - len(found), _PAGE)
            asked = self._redis.xrevrange(Keys(name).labels, max=latest, count=page)
            rows = await ask(self._redis, asked)
            found += [Label(id=row.decode(), **_unpack(entry[b"e"])) for row, entry in rows]
            if len(rows) < page:
                break
            latest = f"({found[-1].id}"
        return found


def _pack(entry: Event | Label) -> bytes:
    values = {name: getattr(entry, name) for name in entry.__slots__ if name != "id"}
    values["vector"] = np.asarray(entry.vector, dtype="<f4").tobytes()
    return msgspec.msgpack.encode(values)


def _unpack(packed: bytes) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.msgpack.decode(packed)
    values["vector"] = np.frombuffer(values["vector"], dtype="<f4")
    return values


def _is_id(text: str) -> bool:
    first, dash, last = text.partition("-")
    digits = (first + last).isascii() and first.isdigit() and last.isdigit()
    return bool(dash) and digits and max(len(first), len(last)) <= 19


async def labelled(events: Events, detector: Detector) -> Labels | None:
    """Return what people said last of each vector; None where it decides no threshold."""
    return await judged(events, detector) if "labels" in detector.config.threshold else None


async def judged(events: Events, detector: Detector) -> Labels | None:
    """Return what people said last of each vector; None where they said nothing."""
    said = {one.vector.tobytes(): one for one in reversed(await events.labels(detector.name))}
    # A label may be older than the first batch, which fixed the dimension.
    of = [one for one in said.values() if detector.dimension in (None, len(one.vector))]
    if not of:
        return None
    return Labels(
        np.stack([one.vector for one in of]), np.array([one.label == "anomaly" for one in of])
    )
