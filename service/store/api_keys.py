"""API keys in the store: made, listed, revoked. Their secrets are never there."""

from dataclasses import replace
from typing import Any

import orjson
from redis.asyncio import Redis

from service.domain.api_key import Grant, Scope
from service.problems import Conflict, Unknown
from service.store.connection import Script, ask, connect
from service.store.lua import AUDIT, said
from service.store.redis_keys import API_KEYS, KEYS_AUDIT

_REVISION = b"revision"  # a field beside the keys; no key has this id

# KEYS: keys, audit. ARGV: id, most keys, document, what it allows (JSON), what the audit says
_CREATE = Script(
    AUDIT
    + """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[2]) then return 0 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSET', KEYS[1], ARGV[1], '{"created":' .. now .. ',' .. ARGV[3])
audit(KEYS[2], now, 'null', ARGV[4], ARGV[5])
return now
"""
)

# KEYS: keys, audit. ARGV: id, what the audit says
_REVOKE = Script(
    AUDIT
    + """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
local now = redis.call('TIME')
audit(KEYS[2], now[1] * 1000 + math.floor(now[2] / 1000), '"active"', '"revoked"', ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'revision', 1)
""",
    flags="allow-oom",
)


class ApiKeys:
    """The keys of the service, at most `most`; every change adds one to their revision."""

    def __init__(self, redis: Redis, *, most: int = 1000) -> None:
        self._redis: Any = redis
        self._most = most

    async def create(self, grant: Grant, *, who: str = "") -> Grant:
        """Store what a key allows, and return it with its time; Conflict for one too many."""
        allowed = {
            "name": grant.name,
            "scopes": sorted(grant.scopes),
            "detectors": None if grant.detectors is None else sorted(grant.detectors),
            "requests_per_second": grant.requests_per_second,
            "max_body_bytes": grant.max_body_bytes,
        }
        document = {"digest": grant.digest.hex(), **allowed}
        args = (
            grant.id, self._most, orjson.dumps(document)[1:], orjson.dumps(allowed),
            said("key created", who, key=grant.id),
        )  # fmt: skip
        created = int(await _CREATE(self._redis, (API_KEYS, KEYS_AUDIT), args))
        if not created:
            raise Conflict(f"The service holds at most {self._most} keys.")
        return replace(grant, created=created)

    async def revoke(self, identity: str, *, who: str = "") -> None:
        """Forget a key; Unknown where there is none."""
        args = (identity, said("key revoked", who, key=identity))
        if identity == _REVISION.decode() or not await _REVOKE(
            self._redis, (API_KEYS, KEYS_AUDIT), args
        ):
            raise Unknown("There is no such key.")

    async def revision(self) -> int:
        """Return the number of changes so far."""
        return int(await ask(self._redis, self._redis.hget(API_KEYS, _REVISION)) or 0)

    async def read(self) -> tuple[int, list[Grant]]:
        """Return the revision, and all keys as they stand at it, oldest first."""
        held = await ask(self._redis, self._redis.hgetall(API_KEYS))
        revision = int(held.pop(_REVISION, 0))
        grants = [_grant(identity.decode(), orjson.loads(text)) for identity, text in held.items()]
        return revision, sorted(grants, key=lambda grant: (grant.created or 0, grant.id))


async def count(url: str) -> int:
    """Return how many keys the store at `url` holds; StoreUnavailable."""
    async with await connect(url) as redis:
        _, grants = await ApiKeys(redis).read()
        return len(grants)


def _grant(identity: str, held: dict[str, Any]) -> Grant:
    detectors = held["detectors"]
    return Grant(
        id=identity,
        name=held["name"],
        digest=bytes.fromhex(held["digest"]),
        # A scope of a later release grants nothing here.
        scopes=frozenset(Scope(scope) for scope in held["scopes"] if scope in set(Scope)),
        detectors=None if detectors is None else frozenset(detectors),
        requests_per_second=held["requests_per_second"],
        max_body_bytes=held["max_body_bytes"],
        created=held["created"],
    )
