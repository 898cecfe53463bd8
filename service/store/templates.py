"""Templates: an entity's detector (`t:entity`) is made on demand with its template's config."""

from typing import Any

import msgspec
import orjson
from redis.asyncio import Redis

from service.domain.detector import PLAIN_NAME, template_of
from service.domain.detector_config import DetectorConfig, check_rules, parse
from service.problems import Conflict, Unprocessable, no_such
from service.store.connection import ask
from service.store.lua import audit_fields
from service.store.redis_keys import ENTITIES, TEMPLATES, TEMPLATES_AUDIT
from service.store.script import NamedScript

FORMAT = 1
_SCANNED = 1000  # entities read in one round trip


# The audit entry holds the stored template before and after the change; `null` means no template.
_SET = NamedScript(
    """
local before = redis.call('HGET', KEYS.templates, ARGS.name)
if before and ARGS.new == '1' then return 1 end
if ARGS.after == 'null' then
  if not before then return 0 end
  redis.call('HDEL', KEYS.templates, ARGS.name)
else
  redis.call('HSET', KEYS.templates, ARGS.name, ARGS.after)
end
audit(KEYS.audit, now, before or 'null', ARGS.after, before and ARGS.changed or ARGS.made)
return before and 1 or 0
""",
    keys="templates audit",
    args="name after new changed made",
)
_WHERE = {"templates": TEMPLATES, "audit": TEMPLATES_AUDIT}


class _Stored(msgspec.Struct):
    """A template in the store: its format number, and its config as JSON."""

    format: int
    config: msgspec.Raw


class Templates:
    """The templates of the service."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def put(
        self, name: str, config: DetectorConfig, *, new: bool = False, who: str = ""
    ) -> bool:
        """Store a template's config; return whether it is new. Existing entities keep theirs.

        An existing template is not changed if it must be `new`. Raises Unprocessable for an invalid
        name or config.
        """
        if not PLAIN_NAME.fullmatch(name):
            raise Unprocessable(f"A template's name must match {PLAIN_NAME.pattern}.")
        check_rules(config)
        text = orjson.dumps({"format": FORMAT, "config": config.to_dict()})
        return not await self._set(name, text, "template configured", who, new=new)

    async def _set(
        self, name: str, after: bytes, action: str, who: str, *, new: bool = False
    ) -> bool:
        """Store a template; `null` deletes it. Return whether the template existed."""
        args = {
            "name": name,
            "after": after,
            "new": int(new),
            "changed": audit_fields(action, who, template=name),
            "made": audit_fields("template created", who, template=name),
        }
        return bool(await _SET(self._redis, _WHERE, args))

    async def get(self, name: str) -> DetectorConfig | None:
        """Return the config of a template; None if the template does not exist.

        Raises Conflict if another release wrote the template in another format.
        """
        text = await ask(self._redis, self._redis.hget(TEMPLATES, name))
        if text is None:
            return None
        stored = msgspec.json.decode(text, type=_Stored)
        if stored.format != FORMAT:
            raise Conflict(f"The template has format {stored.format}; this release reads {FORMAT}.")
        return parse(bytes(stored.config))

    async def names(self) -> frozenset[str]:
        """Return the names of all templates."""
        names = await ask(self._redis, self._redis.hkeys(TEMPLATES))
        return frozenset(name.decode() for name in names)

    async def delete(self, name: str, *, who: str = "") -> None:
        """Delete a template; raises Unknown if there is none, Conflict while it has entities."""
        text = await ask(self._redis, self._redis.hget(TEMPLATES, name))
        if text is None:
            raise no_such("template", "/v1/templates")
        # A call that makes an entity lists the entity before it reads the template. This deletion
        # removes the template before it reads the list. So one of the two sees the other.
        await self._set(name, b"null", "template deleted", who)
        if (entities := await self._entities(name)) > 0:
            await self._set(name, text, "template created", who)
            raise Conflict(
                f"The template has entities ({entities}); delete those detectors first.",
                entities=entities,
            )

    async def _entities(self, name: str) -> int:
        entities, cursor = set[str](), 0
        while True:
            scan = self._redis.sscan(ENTITIES, cursor, match=f"{name}:*", count=_SCANNED)
            cursor, names = await ask(self._redis, scan)
            entities |= {
                entity.decode() for entity in names if template_of(entity.decode()) == name
            }
            if not cursor:
                return len(entities)
