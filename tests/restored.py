"""Puts a store back to an older copy of itself under running processes."""

from redis.asyncio import Redis

Copy = dict[bytes, bytes]


async def copied(redis: Redis) -> Copy:
    """Return everything in the store."""
    return {key: await redis.dump(key) for key in await redis.keys()}


async def put_back(redis: Redis, copy: Copy) -> None:
    """Replace the store's content by `copy` in one step."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for key, value in copy.items():
            pipe.restore(key, 0, value)
        await pipe.execute()
