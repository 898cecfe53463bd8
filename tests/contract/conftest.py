"""A running service, and versions trained once."""

from collections.abc import AsyncIterator

import numpy as np
import pytest

from models import Config, Model, Version, train
from tests.contract.running import Running, running


@pytest.fixture(scope="session")
def versions() -> tuple[Version, Version]:
    """Two generations of a small detector of dimension 3."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    config = Config(score="elbo", model=Model(epochs=5, hidden=(8,), latent=2))
    first = train(None, X, config)
    return first, train(first, X + 1, config)


@pytest.fixture
async def api(store_url: str) -> AsyncIterator[Running]:
    """Serve an empty store."""
    async with running(store_url, poll_seconds=0.2) as api:
        yield api


@pytest.fixture
async def pump(api: Running, versions: tuple[Version, Version]) -> Running:
    """Serve the detector `pump`, of dimension 3, at version 1."""
    await api.make()
    await api.learn(versions[0])
    await api.serving(1)
    return api
