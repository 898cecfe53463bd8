"""The names of all detectors, and how many there may be."""

from typing import Any

from redis.asyncio import Redis

from service.domain.detector import template_of
from service.problems import Conflict
from service.store.connection import ask
from service.store.redis_keys import DETECTORS, ENTITIES, TEMPLATES


class DetectorNames:
    """At most `max_detectors`, and `max_entities` beside them that templates made.

    The list lies in other slots of a cluster than the detectors. A name is in it before its
    detector exists and is put there again after, lest a deletion took it out.
    """

    def __init__(self, redis: Redis, *, max_detectors: int, max_entities: int) -> None:
        self._redis: Any = redis
        self._max_detectors, self._max_entities = max_detectors, max_entities

    async def all(self) -> set[str]:
        """Return the names of all detectors; one that is being made or deleted may be included."""
        members = await ask(self._redis, self._redis.smembers(DETECTORS))
        return {name.decode() for name in members}

    async def add(self, name: str) -> bool:
        """Add a name; return whether it is new."""
        if template_of(name) is not None:
            await ask(self._redis, self._redis.sadd(ENTITIES, name))
        return bool(await ask(self._redis, self._redis.sadd(DETECTORS, name)))

    async def remove(self, name: str) -> None:
        """Remove a name."""
        await ask(self._redis, self._redis.srem(DETECTORS, name))
        if template_of(name) is not None:
            await ask(self._redis, self._redis.srem(ENTITIES, name))

    async def claim(self, name: str) -> None:
        """Add the name of a detector that is about to be made.

        Raises Conflict where it is one too many, or has no template.
        """
        if await self.add(name) and (why := await self._refusal(name)):
            await self.remove(name)
            raise Conflict(why)

    async def _refusal(self, name: str) -> str | None:
        client, template = self._redis, template_of(name)
        entities = await ask(client, client.scard(ENTITIES))
        if template is None:
            full = await ask(client, client.scard(DETECTORS)) - entities > self._max_detectors
            return f"The service holds at most {self._max_detectors} detectors." if full else None
        if entities > self._max_entities:
            return f"The service holds at most {self._max_entities} entities of templates."
        if not await ask(client, client.hexists(TEMPLATES, template)):
            return f"There is no template {template}: make that first."
        return None
