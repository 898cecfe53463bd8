"""What drift and events get to see."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.domain.champion import Champion
from service.scoring.champions import Champions
from service.settings import Settings
from service.store.adapters import Stores
from service.telemetry.live_reporter import EVENTS, SAMPLED, SHADOWED, Observer
from service.telemetry.metrics import Metrics
from tests.service.stored import Stored
from tests.service.trained import champion

pytestmark = pytest.mark.anyio


class Observed:
    """An observer of the detector `pump`, which serves version 1."""

    def __init__(self, stores: Stores, serving: Champion) -> None:
        self.stores, self.serving = stores, serving
        self.registry = CollectorRegistry()
        self.champions = Champions(2)
        self.champions.install(serving)
        self.observer = Observer(stores, self.champions, Metrics(self.registry))

    def score(self, X: np.ndarray, with_: Champion | None = None) -> None:
        """Let the observer see the answer to X."""
        used = with_ or self.serving
        X = X.astype(np.float32)
        self.observer.scored(used, X, used.version.judge(X, used.threshold), 0.001)


@pytest.fixture
async def observed(stored: Stored, store_url: str) -> AsyncIterator[Observed]:
    """Observe over an empty store."""
    stores = await Stores.open(Settings(redis_url=store_url), store_url)
    yield Observed(stores, champion(1, uid=(await stored.get()).uid))
    await stores.close()


async def test_summary(observed: Observed) -> None:
    """One summary a second tells how many were scored, their scores, and counts per feature."""
    rng = np.random.default_rng(0)
    observed.score(rng.normal(size=(30, 3)))
    observed.score(rng.normal(size=(10, 3)))
    await observed.observer.flush()
    await observed.observer.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    assert (summary["n"], summary["rows"], summary["version"]) == (40, 40, 1)
    assert len(np.frombuffer(summary["scores"], "<f4")) == 40
    assert len(np.frombuffer(summary["p_values"], "<f4")) == 40
    counts = np.frombuffer(summary["counts"], "<i8").reshape(3, -1)
    assert (counts.sum(axis=1) == 40).all()
    regimes = np.frombuffer(summary["regimes"], "<i8")
    assert (len(regimes), regimes.sum()) == (1 + len(observed.serving.version.regimes), 40)
    assert regimes[0] == summary["anomalies"]


async def test_large_requests_are_sampled(observed: Observed) -> None:
    """Of a large batch a sample is kept, and all of it counted."""
    observed.score(np.zeros((9000, 3)))
    await observed.observer.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    assert (summary["n"], summary["rows"]) == (9000, SAMPLED)


async def test_live_vectors_are_kept_for_those_who_ask(observed: Observed, stored: Stored) -> None:
    """A few of every second, where the config has a shadow stage; otherwise none."""
    X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    for config in ({}, {"shadow": {"vectors": 150}}):
        await stored.make(retrain=config)
        observed.champions.note(await stored.get())
        observed.score(X)
        await observed.observer.flush()
        assert await observed.stores.live.sampled("pump") == (SHADOWED if config else 0)
    kept = await observed.stores.live.sample("pump", 150, 3)
    assert (kept[[0, -1]] == X[[0, -1]]).all()


async def test_events(observed: Observed) -> None:
    """Anomalies become events, the latest of a second, with what contributed."""
    observed.score(np.vstack([np.zeros((3, 3)), np.full((EVENTS + 9, 3), 70.0)]))
    await observed.observer.flush()
    events = await observed.stores.events.latest("pump", limit=1000)
    assert len(events) == EVENTS
    assert events[0].vector.tolist() == [70, 70, 70]
    assert events[0].attributions[0].keys() == {"feature", "contribution", "value", "expected"}


async def test_pinned_versions_are_not_observed(observed: Observed) -> None:
    """Drift is about the champion's traffic."""
    observed.score(np.zeros((3, 3)), champion(2, uid=observed.serving.uid))
    await observed.observer.flush()
    assert await observed.stores.live.read("pump") == []


async def test_memory_is_bounded(observed: Observed) -> None:
    """What does not fit between two flushes is counted, not kept."""
    for _ in range(15):
        observed.score(np.zeros((2000, 3)))
    await observed.observer.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    assert (summary["n"], summary["rows"]) == (30_000, SAMPLED)
    dropped = observed.registry.get_sample_value(
        "anamnesis_live_dropped_total", {"detector": "pump"}
    )
    assert dropped == 10_000


async def test_without_a_store(own_store: object, observed: Observed) -> None:
    """A store that is away costs the summary, nothing else."""
    url: str = own_store.url  # type: ignore[attr-defined]
    stores = await Stores.open(Settings(redis_url=url), url)
    alone = Observed(stores, observed.serving)
    own_store.kill()  # type: ignore[attr-defined]
    alone.score(np.zeros((7, 3)))
    await alone.observer.flush()
    dropped = alone.registry.get_sample_value("anamnesis_live_dropped_total", {"detector": "pump"})
    assert dropped == 7
    await stores.close()
