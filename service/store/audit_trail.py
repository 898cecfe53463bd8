"""The audit trail: who changed what of a detector, from what, to what, and why.

A trail is append-only, and its entries form a chain: the hash of an entry covers the hash of the
entry before and its own text. It is SHA-1, the only digest that the store's scripts can compute. A
person who kept an earlier hash can check that no entry up to it was altered, removed or inserted,
since that would need a second preimage. Each change and its entry are written by one script. The
API keys and the templates belong to no detector and have a trail each.
"""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from service.domain.audit_chain import WrittenEntry
from service.store.connection import ask
from service.store.redis_keys import KEYS_AUDIT, TEMPLATES_AUDIT, Keys

PAGE = 1000
OF = {"keys": KEYS_AUDIT, "templates": TEMPLATES_AUDIT}  # trails of no detector


class Audit:
    """Reads the audit trails of all detectors, and those of API keys and templates."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def entries(
        self, name: str | None, *, of: str = "keys", after: int = 0, limit: int = PAGE
    ) -> list[WrittenEntry]:
        """Return up to `limit` entries from number `after` + 1 on, oldest first.

        They are the detector's, or, with no `name`, those `of` the API keys or the templates.
        """
        client, key = self._redis, OF[of] if name is None else Keys(name).audit
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
