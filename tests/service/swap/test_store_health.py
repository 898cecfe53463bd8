"""What a process knows about its store."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.problems import StoreUnavailable
from service.scoring.champions import Champions
from service.settings import Settings
from service.store import durability
from service.store.adapters import Stores
from service.store.connection import WeakStore, notifications
from service.swap.store_health import StoreHealth
from service.swap.watcher import Watcher
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


async def test_a_store_that_becomes_weak_while_it_runs_is_refused(
    own_store, own_redis, monkeypatch
):
    """An eviction policy that is set at run time would delete vectors without an error."""
    monkeypatch.setattr(durability, "_CHECK_SECONDS", 0.0)
    health = StoreHealth(Settings(redis_url=own_store.url))
    await health.check(own_redis)
    await own_redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(WeakStore, match="maxmemory-policy is allkeys-lru"):
        await health.check(own_redis)
    with pytest.raises(StoreUnavailable, match="store is refused"):
        health.check_writable()
    await own_redis.config_set("maxmemory-policy", "noeviction")
    await health.check(own_redis)
    health.check_writable()


async def test_refused_notifications_are_logged_once(own_store):
    """If the store refuses to let a process subscribe, that is logged once; polls find changes."""
    stores = await Stores.open(settings := Settings(redis_url=own_store.url), own_store.url)
    await stores.redis.execute_command("ACL", "SETUSER", "default", "-subscribe")
    metrics = Metrics(CollectorRegistry())
    watcher = Watcher(stores, Champions(2), settings, metrics)
    await watcher.poll()
    with capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as refused:
                await anext(notifications(stores.listening))
            watcher.health.note_no_notifications(refused.value)
    (line,) = lines
    assert line["event"] == "no notifications, so changes are found by polling"
    assert "subscribe" in line["why"]
    await stores.close()


async def test_a_store_is_back_only_after_it_was_away():
    """The first answer after the start is not logged as a return; one after an outage is."""
    health = StoreHealth(Settings())
    with capture_logs() as lines:
        assert health.note_answer()
    assert not lines
    health.away("no connection")
    with capture_logs() as lines:
        assert health.note_answer()
    assert [line["event"] for line in lines] == ["store back"]
