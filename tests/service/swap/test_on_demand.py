"""Champions on demand: loaded when a request needs them, and unloaded within a bound."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.domain.detector import Detector
from service.domain.version_record import NewRecord
from service.problems import NoVersion, StoreUnavailable
from service.scoring.champions import Champions
from service.settings import Settings
from service.store.adapters import Stores
from service.store.redis_keys import Keys
from service.swap.loader import memory_bytes
from service.swap.watcher import Watcher
from service.telemetry.metrics import Metrics
from tests.service.stored import Stored
from tests.service.trained import versions

pytestmark = pytest.mark.anyio

ARTIFACT = versions()[0].to_bytes()
ONE = memory_bytes(ARTIFACT)


@dataclass
class Process:
    """One process with room for two and a half champions."""

    watcher: Watcher
    registry: CollectorRegistry

    @property
    def loaded(self) -> set[str]:
        return {champion.name for champion in self.watcher.champions.loaded()}

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"anamnesis_{name}", labels) or 0.0


async def _fill(stored: Stored, *names: str) -> None:
    for name in names:
        await stored.make(name)
        await stored.registry.import_version(name, ARTIFACT, NewRecord())
        await stored.registry.set_champion(name, 1)


async def _process(url: str, folder: Path) -> Process:
    settings = Settings(redis_url=url, cache_dir=folder, loaded_bytes=2**20)
    registry = CollectorRegistry()
    champions, metrics = Champions(2, 2 * ONE + ONE // 2), Metrics(registry)
    metrics.on_scored = champions.touch
    stores = await Stores.open(settings, url)
    return Process(Watcher(stores, champions, settings, metrics), registry)


@pytest.fixture
async def process(stored: Stored, store_url: str, tmp_path: Path) -> AsyncIterator[Process]:
    """Serve four detectors with a version each, and `pump` without one."""
    await _fill(stored, "a", "b", "c", "d")
    made_process = await _process(store_url, tmp_path)
    await made_process.watcher.poll()
    yield made_process
    await made_process.watcher.stores.close()


async def test_nothing_is_loaded_before_it_is_needed(process: Process) -> None:
    """A poll lists all detectors and loads none; a request loads only its own."""
    champions = process.watcher.champions
    assert process.loaded == set()
    assert len(champions.detectors()) == 5
    await process.watcher.ensure_known("a")
    assert process.loaded == {"a"}
    assert champions.serving("a").generation == 1
    await process.watcher.ensure_known("pump")
    with pytest.raises(NoVersion):
        champions.serving("pump")
    await process.watcher.poll()
    assert process.loaded == {"a"}


async def test_requests_that_come_together_load_once(process: Process) -> None:
    """Of concurrent requests one loads the champion, and the others wait for it."""
    await process.watcher.ensure_known("b")
    before = process.count("champion_loads_total", source="store")
    await asyncio.gather(*(process.watcher.ensure_known("a") for _ in range(8)))
    assert process.count("champion_loads_total", source="store") == before + 1


async def test_requests_without_a_version_share_a_read(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that wait for the first version do not read the store one after another."""
    detectors, reads = process.watcher.stores.detectors, 0
    read = detectors.get

    async def counted(name: str) -> Detector | None:
        nonlocal reads
        reads += 1
        return await read(name)

    monkeypatch.setattr(detectors, "get", counted)
    await asyncio.gather(*(process.watcher.ensure_known("pump") for _ in range(50)))
    assert reads <= 2
    await process.watcher.ensure_known("pump")
    assert reads <= 3


async def test_the_least_recently_used_champion_is_unloaded(process: Process) -> None:
    """The champion that was not used for longest is unloaded; the bound always holds."""
    champions = process.watcher.champions
    for name in ("a", "b"):
        await process.watcher.ensure_known(name)
    # Counters in files continue from those of earlier tests.
    before = process.count("champion_loads_total", source="store") - 2
    evicted = process.count("champion_evictions_total")
    champions.touch(("a",))
    await process.watcher.ensure_known("c")
    assert process.loaded == {"a", "c"}
    assert process.count("champion_evictions_total") == evicted + 1
    assert process.count("loaded_champions") == 2
    assert process.count("loaded_bytes") == 2 * ONE
    for name in "abcd" * 3:
        await process.watcher.ensure_known(name)
        assert champions.serving(name).name == name
        assert champions.loaded_bytes <= 2 * ONE + ONE // 2
    # A champion that was loaded once is on this machine's disk.
    assert process.count("champion_loads_total", source="store") == before + 4
    assert process.count("champion_loads_total", source="disk") > 0


async def test_a_cold_champion_is_the_one_that_the_store_names(
    process: Process, stored: Stored
) -> None:
    """An older copy on disk is not served after a promotion."""
    await process.watcher.ensure_known("a")
    for name in ("b", "c"):
        await process.watcher.ensure_known(name)
    await stored.registry.import_version("a", versions()[1].to_bytes(), NewRecord())
    await stored.registry.set_champion("a", 2)
    await process.watcher.ensure_known("a")
    assert process.watcher.champions.serving("a").number == 2
    await process.watcher.ensure_known("b")
    await stored.make("b", threshold={"value": 7.0})
    await process.watcher.poll()
    assert process.watcher.champions.serving("b").threshold.value == 7.0


async def test_a_damaged_champion_is_a_conflict(process: Process, stored: Stored) -> None:
    """A damaged champion is 409 until another one is promoted."""
    digest = await stored.registry.import_version("a", versions()[1].to_bytes(), NewRecord())
    await stored.registry.set_champion("a", 2)
    record = await stored.registry.record("a", digest)
    assert record is not None
    await stored.redis.set(Keys("a").artifact(str(record.record.sha256)), ARTIFACT[:-1])
    for _ in range(2):
        await process.watcher.ensure_known("a")
        with pytest.raises(NoVersion, match="The champion, version 2, cannot be loaded"):
            process.watcher.champions.serving("a")
    await stored.registry.set_champion("a", 1)
    await process.watcher.ensure_known("a")
    assert process.watcher.champions.serving("a").number == 1


async def test_without_the_store_champions_on_disk_are_served(own_store: object, tmp_path: Path):
    """Without the store, champions on disk are loaded, and others are refused."""
    url: str = own_store.url  # type: ignore[attr-defined]
    first = await _process(url, tmp_path)
    stored = Stored(first.watcher.stores.redis)
    await _fill(stored, "a", "b", "c", "d")
    await first.watcher.poll()
    for name in ("a", "b", "c"):
        await first.watcher.ensure_known(name)
    own_store.kill()  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        await first.watcher.poll()
    assert "a" not in first.loaded
    await first.watcher.ensure_known("a")
    assert first.watcher.champions.serving("a").number == 1
    await first.watcher.ensure_known("d")
    with pytest.raises(StoreUnavailable):
        first.watcher.champions.serving("d")

    restarted = await _process(url, tmp_path)  # after a restart: it knows no detector
    await restarted.watcher.restore()
    assert len(restarted.loaded) == 2
    for name in ("a", "b", "c"):
        await restarted.watcher.ensure_known(name)
        assert restarted.watcher.champions.serving(name).number == 1
    with pytest.raises(StoreUnavailable):
        await restarted.watcher.ensure_known("d")
    await first.watcher.stores.close()
    await restarted.watcher.stores.close()
