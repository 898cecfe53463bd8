"""Which detectors changed, as the store announces it."""

from collections.abc import AsyncIterator

from redis.asyncio import Redis

from service.keys import NOTIFY
from service.store import store_errors

_LOOK_SECONDS = 1.0  # between looks at whether the connection still lives


async def notifications(redis: Redis) -> AsyncIterator[str | None]:
    """Yield the name of every detector that changes, and None where nothing came for a while.

    `redis` serves this alone: a subscription takes its connection for itself. A name announced
    while nobody listens is lost, so listeners also poll. Raises StoreUnavailable.
    """
    async with store_errors(), redis.pubsub() as subscription:
        await subscription.subscribe(NOTIFY)
        while True:
            message = await subscription.get_message(
                ignore_subscribe_messages=True, timeout=_LOOK_SECONDS
            )
            yield message["data"].decode() if message else None
