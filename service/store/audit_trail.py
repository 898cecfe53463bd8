"""The audit trail: who changed what of a detector, from what, to what, and why.

Append-only and chained: each entry's hash is SHA-1 over the hash before it and its own text, the
one digest that the store's scripts can compute. Whoever kept an earlier hash can tell whether
anything up to it was altered, left out or put in between, for that takes a second preimage.
Entries are written in the same script as the change itself. The API keys, which are of no detector,
have a trail of their own.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from redis.asyncio import Redis

from service.domain.audit_chain import WrittenEntry
from service.store.connection import ask
from service.store.lua import AUDIT, NOW, READ
from service.store.redis_keys import KEYS_AUDIT, Keys
from service.store.script import NamedScript

PAGE = 1000


_APPEND = NamedScript(
    READ
    + AUDIT
    + NOW
    + """
local uid = redis.call('HGET', KEYS.state, STATE.uid)
if not uid or (ARGS.uid ~= '' and ARGS.uid ~= uid) then return 0 end
audit(KEYS.audit, now, ARGS.before, ARGS.after, ARGS.audited)
return 1
""",
    keys="state audit",
    args="uid before after audited",
)


class Audit:
    """The audit trails of all detectors."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def append(
        self, name: str, entry: bytes, *, before: Any = None, after: Any = None
    ) -> bool:
        """Write an entry for a change that no script audits; False if the detector is gone."""
        args = {
            "uid": "",
            "before": orjson.dumps(before),
            "after": orjson.dumps(after),
            "audited": entry,
        }
        return bool(await _APPEND(self._redis, Keys(name), args))

    async def entries(
        self, name: str | None, *, after: int = 0, limit: int = PAGE
    ) -> list[WrittenEntry]:
        """Return up to `limit` entries from number `after` + 1 on, oldest first.

        They are the detector's, or, with no `name`, those of the API keys.
        """
        client, key = self._redis, KEYS_AUDIT if name is None else Keys(name).audit
        first = await ask(client, client.xrange(key, count=1))
        if not first:
            return []
        # Entries are numbered without gaps, but a stream is read by time: read on to the page.
        found: list[WrittenEntry] = []
        at = "-"
        while len(found) < limit:
            rows = await ask(client, client.xrange(key, at, "+", count=PAGE))
            found += [_entry(row) for _, row in rows if int(row[b"s"]) > after]
            if len(rows) < PAGE:
                break
            at = f"({rows[-1][0].decode()}"
        return found[:limit]


def _entry(row: Mapping[bytes, bytes]) -> WrittenEntry:
    return WrittenEntry.read(row[b"e"], row[b"p"].decode(), row[b"h"].decode())
