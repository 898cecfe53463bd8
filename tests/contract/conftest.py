"""A running service, and versions trained once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.settings import Settings
from service.store.connection import connect
from service.worker.worker import Worker
from tests.contract.running import Running, running
from tests.service import trained
from tests.service.trained import Versions


@pytest.fixture(scope="session")
def versions() -> Versions:
    """Two generations of a small detector of dimension 3."""
    return trained.versions()


@pytest.fixture
async def api(store_url: str) -> AsyncIterator[Running]:
    """Serve an empty store."""
    async with running(store_url, poll_seconds=0.2) as api:
        yield api


@pytest.fixture
async def worker(store_url: str) -> AsyncIterator[Worker]:
    """Run a worker with its own trainer beside the API process."""
    async with await connect(store_url, deadline=20.0) as redis:
        made = Worker(Settings(redis_url=store_url, tick_seconds=0.2), redis, store_url)
        life = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            made.stop()
            async with asyncio.timeout(120):
                await life


@pytest.fixture
async def pump(api: Running, versions: Versions) -> Running:
    """Serve the detector `pump`, of dimension 3, at version 1."""
    await api.make()
    await api.serve(versions[0])
    return api
