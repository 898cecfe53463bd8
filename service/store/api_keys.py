"""Creates, lists and revokes API keys in the store. The store never holds their secrets."""

import secrets
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from service.domain import session
from service.domain.api_key import Grant, allowed
from service.domain.scope import Scope
from service.problems import Conflict, no_such
from service.store.connection import ask, connect
from service.store.lua import audit_fields
from service.store.redis_keys import API_KEYS, ENDED_SESSIONS, KEYS_AUDIT, KEYS_NONCE
from service.store.script import NamedScript

_REVISION = b"revision"  # a field beside the keys; no key has this id

_CREATE = NamedScript(
    """
if redis.call('HEXISTS', KEYS.keys, ARGS.id) == 1 then return 0 end
if redis.call('HLEN', KEYS.keys) > tonumber(ARGS.most) then return 0 end
redis.call('HINCRBY', KEYS.keys, 'revision', 1)
redis.call('SET', KEYS.nonce, string.format('%.0f', now) .. '-' .. ARGS.nonce)
redis.call('HSET', KEYS.keys, ARGS.id, '{"created":' .. now .. ',' .. ARGS.document)
audit(KEYS.audit, now, 'null', ARGS.allowed, ARGS.audited)
return now
""",
    keys="keys audit nonce",
    args="id most nonce document allowed audited",
)

_REVOKE = NamedScript(
    """
-- Processes may still accept a key that a restored store lost. Then they read the keys again.
redis.call('SET', KEYS.nonce, string.format('%.0f', now) .. '-' .. ARGS.nonce)
if redis.call('HDEL', KEYS.keys, ARGS.id) == 0 then return 0 end
audit(KEYS.audit, now, '"active"', '"revoked"', ARGS.audited)
return redis.call('HINCRBY', KEYS.keys, 'revision', 1)
""",
    keys="keys audit nonce",
    args="id nonce audited",
    flags="allow-oom",
)

_END_SESSION = NamedScript(
    """
redis.call('SET', KEYS.nonce, string.format('%.0f', now) .. '-' .. ARGS.nonce)
local names = (redis.call('HGET', KEYS.ended, ARGS.id) or '') .. ARGS.name .. ','
redis.call('HSET', KEYS.ended, ARGS.id, string.sub(names, -ARGS.most))
redis.call('EXPIRE', KEYS.ended, ARGS.seconds)
""",
    keys="ended nonce",
    args="id name nonce most seconds",
    flags="allow-oom",
)

_WHERE = {
    "keys": API_KEYS, "audit": KEYS_AUDIT, "nonce": KEYS_NONCE, "ended": ENDED_SESSIONS
}  # fmt: skip
# Bytes of the names of a key's ended sessions: its latest 100. A session that ended before these is
# valid again until its time is over, but only the key itself can log in and out so often.
_MOST_ENDED = 1700


class KeyTableState(NamedTuple):
    """One state of the key table: its number of changes, and the nonce of the latest change.

    The nonce begins with its time in milliseconds since 1970. After a store was restored from a
    copy, two different states may have the same number, but their nonces differ. The nonce is empty
    if the first release made the latest change.
    """

    revision: int
    nonce: str

    def older(self, other: "KeyTableState") -> bool:
        """Return whether this state is older than `other`, by the store's clock if known."""
        time, other_time = (int(state.nonce.partition("-")[0] or 0) for state in (self, other))
        return self.revision < other.revision and time <= other_time


class ApiKeys:
    """The keys of the service, at most `most`; every change adds one to their revision."""

    def __init__(self, redis: Redis, *, most: int = 1000) -> None:
        self._redis: Any = redis
        self._most = most

    async def create(self, grant: Grant, *, who: str = "") -> Grant:
        """Store the key's grant; return it with its time. Raises Conflict if the table is full."""
        document = {"digest": grant.digest.hex(), **allowed(grant)}
        args = {
            "id": grant.id,
            "most": self._most,
            "nonce": secrets.token_hex(8),
            "document": orjson.dumps(document)[1:],
            "allowed": orjson.dumps(allowed(grant)),
            "audited": audit_fields("key created", who, key=grant.id),
        }
        created = int(await _CREATE(self._redis, _WHERE, args))
        if not created:
            raise Conflict(f"The service holds at most {self._most} API keys. Revoke one first.")
        return replace(grant, created=created)

    async def revoke(self, identity: str, *, who: str = "") -> None:
        """Delete a key. Raises Unknown if there is no such key.

        Either way every process reads the keys again, and so forgets a key that the store lost.
        """
        args = {
            "id": identity,
            "nonce": secrets.token_hex(8),
            "audited": audit_fields("key revoked", who, key=identity),
        }
        if identity == _REVISION.decode() or not await _REVOKE(self._redis, _WHERE, args):
            raise no_such("API key", "/v1/keys")

    async def end_session(self, identity: str, name: str) -> None:
        """End the session `name` of a key, for every copy of its cookie."""
        args = {
            "id": identity,
            "name": name,
            "nonce": secrets.token_hex(8),
            "most": _MOST_ENDED,
            "seconds": session.SECONDS,
        }
        await _END_SESSION(self._redis, _WHERE, args)

    async def ended_sessions(self) -> frozenset[str]:
        """Return the names of the sessions that a logout ended."""
        listed = await ask(self._redis, self._redis.hvals(ENDED_SESSIONS))
        return frozenset(name for names in listed for name in names.decode().split(",") if name)

    async def state(self) -> KeyTableState:
        """Return the present state of the key table."""
        pipe = self._redis.pipeline(transaction=False).hget(API_KEYS, _REVISION).get(KEYS_NONCE)
        revision, nonce = await ask(self._redis, pipe.execute())
        return KeyTableState(int(revision or 0), (nonce or b"").decode())

    async def read(self) -> tuple[KeyTableState, list[Grant]]:
        """Return the present state of the key table, and all its keys, oldest first."""
        # The table may change between the replies. With an older nonce beside newer keys, the next
        # comparison with the store differs, and the keys are read again.
        pipe = self._redis.pipeline(transaction=False).get(KEYS_NONCE).hgetall(API_KEYS)
        nonce, fields = await ask(self._redis, pipe.execute())
        state = KeyTableState(int(fields.pop(_REVISION, 0)), (nonce or b"").decode())
        grants = [
            _grant(identity.decode(), orjson.loads(text)) for identity, text in fields.items()
        ]
        return state, sorted(grants, key=lambda grant: (grant.created or 0, grant.id))


async def count(url: str) -> int:
    """Return how many keys the store at `url` holds; raises StoreUnavailable."""
    async with await connect(url) as redis:
        _, grants = await ApiKeys(redis).read()
        return len(grants)


def _grant(identity: str, fields: dict[str, Any]) -> Grant:
    detectors = fields["detectors"]
    return Grant(
        id=identity,
        name=fields["name"],
        digest=bytes.fromhex(fields["digest"]),
        # A scope of a later release is unknown here and allows nothing.
        scopes=frozenset(Scope(scope) for scope in fields["scopes"] if scope in set(Scope)),
        detectors=None if detectors is None else frozenset(detectors),
        requests_per_second=fields["requests_per_second"],
        max_body_bytes=fields["max_body_bytes"],
        created=fields["created"],
    )
