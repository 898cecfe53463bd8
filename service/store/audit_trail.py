"""The audit trail of a detector: each entry says who changed what, from what to what, and why.

A trail is append-only, and its entries form a chain: the hash of an entry covers the entry's text
and the hash of the entry before. The hash is SHA-1, the only digest that scripts in Redis can
compute. A person who kept an earlier hash can check that no entry up to that hash was altered,
removed or inserted: such a change would need a second preimage. One script writes a change together
with its entry. API keys and templates belong to no detector: each kind has its own trail.
"""

from typing import Any

from redis.asyncio import Redis

from service.domain.audit_chain import WrittenEntry
from service.store.connection import ask
from service.store.redis_keys import KEYS_AUDIT, TEMPLATES_AUDIT, Keys

PAGE = 1000
# The trails that belong to no detector.
SHARED_TRAILS = {"keys": KEYS_AUDIT, "templates": TEMPLATES_AUDIT}


class Audit:
    """Reads the audit trails of all detectors, and those of API keys and templates."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def entries(
        self, name: str | None, *, shared: str = "keys", after: int = 0, limit: int = PAGE
    ) -> list[WrittenEntry]:
        """Return up to `limit` entries from number `after` + 1 on, oldest first.

        The trail is that of detector `name`. Without `name`, `shared` selects that of API keys or
        of templates.
        """
        client, key = self._redis, SHARED_TRAILS[shared] if name is None else Keys(name).audit
        first = await ask(client, client.xrange(key, count=1))
        if not first:
            return []
        # A stream is read by time, not by entry number, so entries before the page are read too.
        entries: list[WrittenEntry] = []
        at = "-"
        while len(entries) < limit:
            rows = await ask(client, client.xrange(key, at, "+", count=PAGE))
            entries += [
                WrittenEntry.read(row[b"e"], row[b"p"].decode(), row[b"h"].decode())
                for _, row in rows
                if int(row[b"s"]) > after
            ]
            if len(rows) < PAGE:
                break
            at = f"({rows[-1][0].decode()}"
        return entries[:limit]
