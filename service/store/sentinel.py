"""A store that Sentinel watches: every new connection asks the sentinels for the master.

    redis+sentinel://user:password@host:26379,host:26379,host:26379/master-name/0

`user` and `password` are the store's. The query parameters `sentinel_username` and
`sentinel_password` are for the sentinels. `rediss+sentinel://` uses TLS for store and sentinels.
"""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from service.addresses import SENTINELS, user_of, watched_store

_SHARE = 0.4  # a sentinel must answer within this share of the deadline


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the present master; callers wait for a free connection."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections; if `inuse_connections`, also those to the sentinels."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def is_watched(url: str) -> bool:
    """Return whether `url` names sentinels."""
    return url.startswith(tuple(f"{scheme}://" for scheme in SENTINELS))


def master_pool(
    url: str, for_sentinels: dict[str, Any], *, deadline: float, **options: Any
) -> MasterPool:
    """Return a pool for the master that `url` names; nothing connects yet.

    After a failover the connections to the old master break, and new connections go to the new
    master. `for_sentinels` has the credentials of connections to the sentinels, and `options` are
    for those to the master.
    """
    parts = urlsplit(url)
    address, query = watched_store(parts), dict(parse_qsl(parts.query))
    tls: dict[str, Any] = {"ssl": True} if parts.scheme == "rediss+sentinel" else {}
    if tls and (authorities := query.get("ssl_ca_certs")):
        tls["ssl_ca_certs"] = authorities
    brief = {
        "socket_timeout": deadline * _SHARE,
        "socket_connect_timeout": deadline * _SHARE,
        # redis-py would ask a sentinel that is gone four times, with pauses of seconds.
        "retry": Retry(backoff=NoBackoff(), retries=0),
    }
    given = zip(("username", "password"), user_of(url), strict=True)
    user = {part: text for part, text in given if text}
    pool: Any = MasterPool  # redis-py has no types here
    watchers: Any = Sentinel
    sentinels = watchers(address.sentinels, sentinel_kwargs={**brief, **for_sentinels, **tls})
    master: MasterPool = pool(
        address.name, sentinels, db=address.database, **user, **tls, **options
    )
    return master
