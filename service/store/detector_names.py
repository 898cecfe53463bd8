"""The names of all detectors, and how many there may be."""

from typing import Any

from redis.asyncio import Redis

from service.domain.detector import NAME, template_of
from service.problems import Conflict
from service.store.connection import ask
from service.store.redis_keys import DETECTORS, ENTITIES, TEMPLATES


class DetectorNames:
    """The list of names: at most `max_entities` names of entities, and `max_detectors` others.

    In a cluster the list and a detector lie in different slots, so no script can change both. A
    name is added before its detector is made. It is added again afterwards, because a deletion may
    have removed it in between.
    """

    def __init__(self, redis: Redis, *, max_detectors: int, max_entities: int) -> None:
        self._redis: Any = redis
        self._max_detectors, self._max_entities = max_detectors, max_entities

    async def all(self) -> set[str]:
        """Return the names of all detectors; it may include one that is being made or deleted."""
        members = await ask(self._redis, self._redis.smembers(DETECTORS))
        # Another program may have added members that cannot be names.
        names = {member.decode(errors="replace") for member in members}
        return {name for name in names if NAME.fullmatch(name)}

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

        Raises Conflict if there are too many detectors, or if an entity's template does not exist.
        """
        if await self.add(name) and (why := await self._refusal(name)):
            await self.remove(name)
            raise Conflict(why)

    async def _refusal(self, name: str) -> str | None:
        client, template = self._redis, template_of(name)
        entities = await ask(client, client.scard(ENTITIES))
        if template is None:
            if await ask(client, client.scard(DETECTORS)) - entities <= self._max_detectors:
                return None
            return f"The service holds at most {self._max_detectors} detectors. Delete one first."
        if entities > self._max_entities:
            return f"The service holds at most {self._max_entities} entities. Delete one first."
        if not await ask(client, client.hexists(TEMPLATES, template)):
            return f"There is no template {template}. Make the template first."
        return None
