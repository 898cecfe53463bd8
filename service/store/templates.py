"""Templates: the configs with which detectors of entities (`t:entity`) are made on demand."""

from typing import Any

import msgspec
from redis.asyncio import Redis

from service.domain.detector import PLAIN_NAME, template_of
from service.domain.detector_config import DetectorConfig, check_rules, parse
from service.problems import Conflict, Unknown, Unprocessable
from service.store.connection import ask
from service.store.redis_keys import ENTITIES, TEMPLATES

FORMAT = 1
_SCANNED = 1000  # entities looked at in one round trip


class _Stored(msgspec.Struct):
    """A template in the store: its format number, and its config as JSON."""

    format: int
    config: msgspec.Raw


class Templates:
    """The templates of the service."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def put(self, name: str, config: DetectorConfig) -> bool:
        """Store a template's config; return whether it is new. Existing entities keep their config.

        Raises Unprocessable for a name or a config that is none.
        """
        if not PLAIN_NAME.fullmatch(name):
            raise Unprocessable(f"A template's name matches {PLAIN_NAME.pattern}.")
        check_rules(config)
        text = msgspec.json.encode({"format": FORMAT, "config": config.to_dict()})
        return bool(await ask(self._redis, self._redis.hset(TEMPLATES, name, text)))

    async def get(self, name: str) -> DetectorConfig | None:
        """Return the config of a template, None where there is none of that name.

        Raises Conflict where a later release wrote it.
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
        found = await ask(self._redis, self._redis.hkeys(TEMPLATES))
        return frozenset(name.decode() for name in found)

    async def delete(self, name: str) -> None:
        """Delete a template; raises Unknown if there is none, Conflict while it has entities."""
        text = await ask(self._redis, self._redis.hget(TEMPLATES, name))
        if text is None:
            raise Unknown("There is no such template.")
        # Whoever makes an entity lists it first and then looks for the template: one of the two
        # sees the other.
        await ask(self._redis, self._redis.hdel(TEMPLATES, name))
        if (entities := await self._entities(name)) > 0:
            await ask(self._redis, self._redis.hsetnx(TEMPLATES, name, text))
            raise Conflict(
                f"The template has entities ({entities}); delete those detectors first.",
                entities=entities,
            )

    async def _entities(self, name: str) -> int:
        found, cursor = set[str](), 0
        while True:
            scan = self._redis.sscan(ENTITIES, cursor, match=f"{name}:*", count=_SCANNED)
            cursor, names = await ask(self._redis, scan)
            found |= {one.decode() for one in names if template_of(one.decode()) == name}
            if not cursor:
                return len(found)
