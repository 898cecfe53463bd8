"""Labels of vectors and events. One sender cannot evict the labels of another sender."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from redis.asyncio import Redis

from models.parts.labels import Labels
from service.domain.detector import Detector
from service.domain.event import Label, equal_share_of_senders
from service.problems import BufferFull, Unprocessable
from service.store.connection import ask
from service.store.erasure import mark_erased
from service.store.lua import audit_fields
from service.store.packing import packed, reader
from service.store.redis_keys import IDEMPOTENCY_SECONDS, MOST_ANSWERS, Keys, suffix
from service.store.script import NamedScript
from service.store.streams import bounded

LABELS_READ = 1000  # labels that set a threshold; the same in every process
SHARE_OF_SENDER = 10  # one sender keeps at most a tenth of all labels
_PAGE = 100  # labels read at once: 25 MB at most

_read = reader(Label)

# If labels set the threshold, a change of labels counts as a change of the config, so that every
# process sees it.
_CHANGED = """
local function changed(config)
  if not cjson.decode(config)['threshold']['labels'] then return end
  local to = redis.call('HINCRBY', KEYS.state, STATE.revision, 1)
  redis.call('HSET', KEYS.state, STATE.config_nonce, ARGS.nonce, STATE.changed, now)
  audit_of(ARGS.who, KEYS.audit, KEYS.hourly, now, to - 1, to, ARGS.audited)
  publish()
end
-- Members sort by sender, then by time.
local function member(sender, id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return sender .. '\\n' .. string.format('%016d-%010d', ms, seq) .. '\\n' .. id
end
"""

_ADD = NamedScript(
    _CHANGED
    + """
local stored = read(KEYS.state, STATE.uid, STATE.config)
if stored[STATE.uid] ~= ARGS.uid then return 'unknown' end
if KEYS.known then
  local first = read(KEYS.known, ANSWER.uid, ANSWER.sha256)
  if first[ANSWER.uid] == ARGS.uid then
    return first[ANSWER.sha256] == ARGS.digest and 'kept' or 'other'
  end
  -- The first release kept only the uid, and one record for all senders.
  if redis.call('GET', KEYS.former) == ARGS.uid then return 'kept' end
end
local from = '[' .. ARGS.sender .. '\\n'
local of_sender = redis.call('ZLEXCOUNT', KEYS.label_senders, from, from .. '\\255')
local more = #ARGV - DATA.entries + 1
local over = math.max(of_sender + more - tonumber(ARGS.most_of_sender),
                      redis.call('XLEN', KEYS.labels) + more - tonumber(ARGS.most))
if over > of_sender then return 'full' end
if over > 0 then
  for _, one in ipairs(redis.call('ZRANGEBYLEX', KEYS.label_senders, from, from .. '\\255',
                                  'LIMIT', 0, over)) do
    redis.call('XDEL', KEYS.labels, string.match(one, '([^\\n]*)$'))
    redis.call('ZREM', KEYS.label_senders, one)
  end
end
for i = DATA.entries, #ARGV do
  local id = redis.call('XADD', KEYS.labels, '*', ENTRY.packed, ARGV[i])
  redis.call('ZADD', KEYS.label_senders, 0, member(ARGS.sender, id))
end
if KEYS.known then
  redis.call('HSET', KEYS.known, ANSWER.uid, ARGS.uid, ANSWER.sha256, ARGS.digest)
  answered()
end
changed(stored[STATE.config])
return 'kept'
""",
    keys="state labels label_senders audit hourly answerers known? former? answers?",
    args="suffix most_answers uid sender digest most most_of_sender seconds nonce who audited",
    data="*entries",
)

# `pairs` is a flat list: sender, id, sender, id, ...
_DELETE = NamedScript(
    _CHANGED
    + """
local config, gone = redis.call('HGET', KEYS.state, STATE.config), 0
for i = DATA.pairs, #ARGV, 2 do
  gone = gone + redis.call('XDEL', KEYS.labels, ARGV[i + 1])
  redis.call('ZREM', KEYS.label_senders, member(ARGV[i], ARGV[i + 1]))
end
if gone > 0 and config then changed(config) end
return gone
""",
    keys="state labels label_senders audit hourly",
    args="nonce who audited",
    data="*pairs",
)


class LabelStore:
    """The labels of every detector: at most `labels_kept`, and a tenth of that for each sender."""

    def __init__(self, redis: Redis, *, labels_kept: int = 10_000) -> None:
        self._redis: Any = redis
        self._labels_kept = labels_kept

    async def add(
        self,
        name: str,
        uid: str,
        labels: Sequence[Label],
        *,
        idempotency_key: str | None = None,
        digest: str = "",
        who: str = "",
    ) -> bool:
        """Store labels of one sender for the detector with this `uid`; False if it was deleted.

        A repeated `idempotency_key` of the sender stores nothing. Raises Unprocessable if the key
        came with another `digest` before. If there is no room, the sender's oldest labels are
        deleted. Raises BufferFull if labels of other senders take all the room. Under the threshold
        policy `labels` the config's revision grows by one, and the audit trail gets an entry.
        """
        keys, entries = Keys(name), list(map(packed, labels))
        if not entries:
            return False
        most = bounded(self._labels_kept, max(map(len, entries)))
        of_sender = max(1, most // SHARE_OF_SENDER)
        entries = entries[-of_sender:]
        sender = labels[0].sender
        known = _answer_keys(keys, idempotency_key, sender) if idempotency_key is not None else {}
        args = {
            "suffix": suffix(sender),
            "most_answers": MOST_ANSWERS,
            "uid": uid,
            "sender": sender,
            "digest": digest,
            "most": most,
            "most_of_sender": of_sender,
            "seconds": IDEMPOTENCY_SECONDS,
            **_change_arguments("labelled", who, len(entries)),
        }
        outcome = await _ADD(self._redis, keys, args, entries, **known)
        if outcome == b"other":
            raise Unprocessable(
                "This Idempotency-Key was sent with other labels before. Use a new key."
            )
        if outcome == b"full":
            raise BufferFull(
                f"The detector holds {most} labels, the most that it keeps. Delete some."
            )
        return bool(outcome == b"kept")

    async def all(self, name: str) -> list[Label]:
        """Return every label, newest first."""
        labels: list[Label] = []
        latest = "+"
        while True:
            question = self._redis.xrevrange(Keys(name).labels, max=latest, count=_PAGE)
            rows = await ask(self._redis, question)
            labels += [replace(_read(entry[b"e"]), id=row.decode()) for row, entry in rows]
            if len(rows) < _PAGE:
                return labels
            latest = f"({labels[-1].id}"

    async def latest(self, name: str, *, limit: int = LABELS_READ) -> list[Label]:
        """Return the latest `limit` labels, newest first, with an equal share for each sender."""
        return equal_share_of_senders(await self.all(name), limit)

    async def delete(self, name: str, labels: Iterable[Label], *, who: str = "") -> int:
        """Delete labels; return how many existed. The next rewrite removes them from the disk."""
        pairs = [part.encode() for label in labels for part in (label.sender, label.id)]
        if not pairs:
            return 0
        await mark_erased(self._redis)
        args = _change_arguments("unlabelled", who, len(pairs) // 2)
        return int(await _DELETE(self._redis, Keys(name), args, pairs))

    async def sweep(self, name: str, sender: str, *, who: str = "") -> int:
        """Delete all labels of a sender; return how many existed."""
        return await self.delete(
            name, [label for label in await self.all(name) if label.sender == sender], who=who
        )


def _answer_keys(keys: Keys, idempotency_key: str, sender: str) -> dict[str, str]:
    """Return the keys that mark stored labels of a sender; `former` is an older form."""
    return {
        "known": keys.labels_idempotency(idempotency_key, sender),
        "former": keys.labels_idempotency(idempotency_key),
        "answers": keys.answers(suffix(sender)),
    }


def _change_arguments(action: str, who: str, labels: int) -> dict[str, str | bytes]:
    """Return the arguments of a script that changes labels."""
    return {
        "nonce": secrets.token_hex(8),
        "who": who,
        "audited": audit_fields(action, who, "labels set the threshold", labels=labels),
    }


async def labels_for_threshold(labels: LabelStore, detector: Detector) -> Labels | None:
    """Return the latest label of each vector; None if labels do not set the threshold."""
    return await latest_labels(labels, detector) if "labels" in detector.config.threshold else None


async def latest_labels(labels: LabelStore, detector: Detector) -> Labels | None:
    """Return the latest label of each vector; None if there are no labels."""
    latest = {
        label.vector.tobytes(): label for label in reversed(await labels.latest(detector.name))
    }
    # A label may be older than the first batch, which fixes the dimension. Its length may differ.
    usable = [label for label in latest.values() if detector.dimension in (None, len(label.vector))]
    if not usable:
        return None
    return Labels(
        np.stack([label.vector for label in usable]),
        np.array([label.label == "anomaly" for label in usable]),
    )
