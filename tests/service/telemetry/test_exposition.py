"""The scraped page equals the library's, in pieces whose size is bounded."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from service.scoring.champions import Champions
from service.scoring.core import Judged
from service.telemetry import exposition
from service.telemetry.exposition import Page, write_page
from service.telemetry.metrics import Metrics
from service.telemetry.store_metrics import StoreMetrics
from tests.service.stored import matrix
from tests.service.telemetry.test_metrics import Store, columns
from tests.service.trained import champion

ODD = 'pump\\ "1"\n# HELP x'  # a feature can have any name


def count_answers(metrics: Metrics, detectors: int) -> StoreMetrics:
    """Count an answer of each of these detectors; return the store's metrics of them."""
    champions = Champions(1)
    for i in range(detectors):
        served = champion(2, name=f"pump-{i}")
        champions.install(served)
        metrics.scored(Judged(served, matrix(2), columns(0.5, 2.0)), 0.001)
        metrics.ingested(served.name, "accepted", 3)
    metrics.flush()
    return StoreMetrics(champions, Store(), buffer_bound=1)


def test_the_page_equals_that_of_the_library() -> None:
    """The page has the library's lines and families, however many pieces it has."""
    metrics = Metrics(CollectorRegistry())
    state = count_answers(metrics, 30)
    metrics.registry.register(state)
    page = asyncio.run(write_page(metrics.families, state))
    assert sorted(page.splitlines()) == sorted(generate_latest(metrics.registry).splitlines())
    heads = [line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))


def test_labels_cannot_break_the_page() -> None:
    """A feature whose name looks like a metric stays a label."""
    family = GaugeMetricFamily("drift", "A help\nof two lines.", labels=("feature",))
    family.add_metric([ODD], 1.0)
    page = Page()
    page.add(family)
    assert page.content() == generate_latest(SimpleNamespace(collect=lambda: [family]))


@pytest.mark.parametrize("shared", [False, True])
def test_no_piece_grows_with_the_detectors(
    tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every piece is small, and requests are served between two pieces."""
    monkeypatch.setattr(exposition, "SLICE_SECONDS", -1.0)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scrape(metrics: Metrics, state: StoreMetrics) -> None:
        other = asyncio.create_task(count_turns())
        await metrics.expose(state)
        other.cancel()

    metrics = Metrics(CollectorRegistry(), directory=tmp_path if shared else None)
    state = count_answers(metrics, 100)
    families = metrics.families.shared or metrics.families
    pieces = [*families.slices(), *state.slices()]
    assert max(len(piece.samples) for piece in pieces if piece is not None) <= 100
    asyncio.run(scrape(metrics, state))
    assert turns >= len(pieces)
