"""Fixtures of the store adapters."""

import pytest
from redis.asyncio import Redis

from tests.service.stored import Stored


@pytest.fixture
async def stored(redis: Redis) -> Stored:
    """All adapters over an empty store that holds the detector `pump`."""
    stored = Stored(redis)
    await stored.make()
    return stored
