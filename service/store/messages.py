"""The messages of each detector that the webhook's receiver has not got yet."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from service.domain.webhook_message import Message
from service.store.connection import ask
from service.store.leases import Lease, under_lease
from service.store.lua import FENCED
from service.store.redis_keys import Keys
from service.store.script import NamedScript

_DONE = NamedScript(
    FENCED
    + """
local deleted = 0
for i = DATA.ids, #ARGV do
  deleted = deleted + redis.call('XDEL', KEYS.messages, ARGV[i])
end
redis.call('HINCRBY', state, STATE.messages_sent, deleted - tonumber(ARGS.dropped))
redis.call('HINCRBY', state, STATE.messages_dropped, ARGS.dropped)
return {'done'}
""",
    keys="state lease messages",
    args="holder dropped",
    data="*ids",
)


class WaitingMessage(NamedTuple):
    """A message and the id of its stream entry."""

    id: str
    message: Message


class Messages:
    """The waiting messages, oldest first. The worker that follows incidents writes them."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    async def waiting(self, name: str, count: int) -> list[WaitingMessage]:
        """Return the oldest `count` messages of a detector."""
        rows = await ask(self._redis, self._redis.xrange(Keys(name).messages, count=count))
        return [
            WaitingMessage(row.decode(), msgspec.msgpack.decode(entry[b"m"], type=Message))
            for row, entry in rows
        ]

    async def done(self, lease: Lease, ids: Sequence[str], *, dropped: bool) -> None:
        """Delete messages that were delivered or `dropped`; raises Fenced if the lease is lost."""
        args = {"dropped": len(ids) if dropped else 0}
        await under_lease(self._redis, _DONE, lease, args, [entry.encode() for entry in ids])
