"""Fixtures of the store adapters, and plain tracebacks in every test."""

from collections.abc import Iterator

import pytest
import structlog
from redis.asyncio import Redis

from tests.service.stored import Stored


@pytest.fixture
async def stored(redis: Redis) -> Stored:
    """All adapters over an empty store that holds the detector `pump`."""
    stored = Stored(redis)
    await stored.make()
    return stored


@pytest.fixture(autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Log errors as the service does.

    structlog's default shows all local variables. This holds the event loop for seconds, and a
    worker then loses its lease.
    """
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, plain])
    yield
    structlog.reset_defaults()
