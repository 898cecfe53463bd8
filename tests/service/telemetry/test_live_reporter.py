"""What an API process reports for drift, events and history."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.parts import incident_rule
from service.domain.attribution import Attribution
from service.domain.champion import Champion
from service.domain.detector_config import parse
from service.domain.row_tags import NO_TAGS, RowTags
from service.domain.traffic import Report
from service.scoring.champions import Champions
from service.scoring.core import Judged
from service.settings import Settings
from service.store import clock
from service.store.adapters import Stores
from service.telemetry import live_reporter
from service.telemetry.live_reporter import SAMPLED, SHADOWED, UNLOADED_BYTES, LiveReporter
from service.telemetry.metrics import Metrics
from service.telemetry.report_sender import UNSENT, Outbox
from service.telemetry.traffic_collector import EVENTS, make_report
from tests.service.stored import Stored
from tests.service.trained import champion
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio


class Observed:
    """A reporter of the detector `pump`, which serves version 1."""

    def __init__(self, stores: Stores, serving: Champion) -> None:
        self.stores, self.serving = stores, serving
        self.registry = CollectorRegistry()
        self.champions = Champions(2, loaded_bytes=2 * UNLOADED_BYTES)
        self.champions.install(serving)
        self.reporter = LiveReporter(stores, self.champions, Metrics(self.registry))

    def score(self, X: np.ndarray, with_: Champion | None = None, tags: RowTags = NO_TAGS) -> None:
        """Give the reporter the answer to X."""
        used = with_ or self.serving
        X = X.astype(np.float32)
        judged = Judged(used, X, used.version.judge(X, used.threshold), tags=tags)
        self.reporter.scored(judged, 0.001)


@pytest.fixture
async def observed(stored: Stored, store_url: str) -> AsyncIterator[Observed]:
    """Return a reporter over an empty store."""
    stores = await Stores.open(Settings(redis_url=store_url), store_url)
    yield Observed(stores, champion(1, uid=(await stored.get()).uid))
    await stores.close()


async def test_rows_are_dated_with_the_store_s_clock(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of this moment are not old if the machine's clock is two days behind the store's."""
    behind = SimpleNamespace(time=lambda: time.time() - 2 * 86_400, monotonic=time.monotonic)
    for module in (clock, live_reporter):
        monkeypatch.setattr(module, "time", behind)
    await observed.stores.clock.now()  # as the watcher does every second
    observed.score(np.full((3, 3), 50.0))
    await observed.reporter.flush()
    ((_, report),) = await observed.stores.traffic.read("pump")
    assert report is not None
    assert abs(report.blocks[0].times[-1] - time.time()) < PATIENCE


async def test_a_summary_has_rows_scores_and_feature_counts(observed: Observed) -> None:
    """A summary a second has the number of rows, their scores, and counts for each feature."""
    rng = np.random.default_rng(0)
    observed.score(rng.normal(size=(30, 3)))
    observed.score(rng.normal(size=(10, 3)))
    await observed.reporter.flush()
    await observed.reporter.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    assert (summary.n, summary.rows, summary.version) == (40, 40, 1)
    assert len(np.frombuffer(summary.scores, "<f4")) == 40
    assert len(np.frombuffer(summary.p_values, "<f4")) == 40
    counts = np.frombuffer(summary.counts, "<i8").reshape(3, -1)
    assert (counts.sum(axis=1) == 40).all()
    regimes = np.frombuffer(summary.regimes, "<i8")
    assert (len(regimes), regimes.sum()) == (1 + len(observed.serving.version.regimes), 40)
    assert regimes[0] == summary.anomalies


async def test_a_summary_keeps_no_unloaded_champion(observed: Observed) -> None:
    """A summary does not keep an unloaded champion in memory."""
    large = replace(observed.serving, bytes=2 * UNLOADED_BYTES)
    observed.champions.install(large)
    observed.score(np.zeros((3, 3)), large)
    await observed.reporter.make_reports_of_unloaded()
    assert large in observed.reporter._pending  # the detector serves it
    observed.champions.unload("pump")
    await observed.reporter.make_reports_of_unloaded()
    assert large not in observed.reporter._pending
    await observed.reporter.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    assert summary.n == 3


async def test_a_report_that_waits_keeps_no_champion(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that waits for the store holds no champion, and holds up no other report."""
    called, go = asyncio.Event(), asyncio.Event()
    append = observed.stores.live.append

    async def append_late(*args: Any) -> bool:
        called.set()
        await go.wait()
        return await append(*args)

    monkeypatch.setattr(observed.stores.live, "append", append_late)
    running = asyncio.create_task(observed.reporter.run())
    try:
        observed.score(np.zeros((2, 3)))
        await asyncio.wait_for(called.wait(), PATIENCE)
        observed.score(np.zeros((3, 3)))
        await until(lambda: not observed.reporter._pending and not observed.reporter._noted)
    finally:
        go.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await observed.reporter.flush()
    assert sum(tally.rows for report in await reports(observed) for tally in report.tallies) == 5


async def test_reports_are_made_in_the_order_of_their_rows(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are noted while others are still being summarised are reported after them."""
    made_first, started = threading.Event(), threading.Event()
    summarise, sizes = LiveReporter._summarise, []

    def summarise_late(reporter: LiveReporter, champion: Champion, pending: Any) -> Any:
        if not started.is_set():
            started.set()
            made_first.wait(PATIENCE)
        sizes.append(pending.scored)
        return summarise(reporter, champion, pending)

    monkeypatch.setattr(LiveReporter, "_summarise", summarise_late)
    observed.score(np.zeros((3, 3)))
    first = asyncio.create_task(observed.reporter.flush())
    await until(started.is_set)
    observed.score(np.zeros((5, 3)))
    second = asyncio.create_task(observed.reporter.flush())
    await asyncio.wait({second}, timeout=0.1)  # out of order it ends at once
    made_first.set()
    await asyncio.gather(first, second)
    assert sizes == [3, 5]


async def test_large_requests_are_sampled(observed: Observed) -> None:
    """Of a large batch a sample is kept, and all rows are counted."""
    observed.score(np.zeros((9000, 3)))
    await observed.reporter.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    assert (summary.n, summary.rows) == (9000, SAMPLED)


async def test_live_vectors_are_kept_only_for_a_shadow_stage(
    observed: Observed, stored: Stored
) -> None:
    """With a shadow stage a few vectors a second are kept, without one none."""
    X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    for config in ({}, {"shadow": {"vectors": 150}}):
        await stored.make(retrain=config)
        observed.champions.note(await stored.get())
        observed.score(X)
        await observed.reporter.flush()
        assert await observed.stores.live.sample_size("pump") == (SHADOWED if config else 0)
    sample = await observed.stores.live.sample("pump", 150, 3)
    assert (sample[[0, -1]] == X[[0, -1]]).all()


async def test_the_severest_anomalies_become_events(observed: Observed) -> None:
    """The severest anomalies of a second become events, with attributions."""
    worst = np.vstack([np.full((9, 3), 40.0), np.full((EVENTS, 3), 70.0), np.full((9, 3), 40.0)])
    observed.score(np.vstack([np.zeros((3, 3)), worst]))
    await observed.reporter.flush()
    events = await observed.stores.events.latest("pump", limit=1000)
    assert len(events) == EVENTS
    assert {tuple(event.vector.tolist()) for event in events} == {(70.0, 70.0, 70.0)}
    assert isinstance(events[0].attributions[0], Attribution)


@pytest.mark.parametrize("answers", [1, 20])
async def test_each_source_has_events_in_a_second(observed: Observed, answers: int) -> None:
    """Beside a severe fault of one source, a milder fault of another source has events, too."""
    X = np.vstack([np.full((3 * EVENTS, 3), 70.0), np.full((30, 3), 40.0)])
    sources = ("pump-a",) * (3 * EVENTS) + ("pump-b",) * 30
    for places in np.array_split(np.arange(len(X)), answers):
        tags = RowTags(sources=tuple(sources[place] for place in places))
        observed.score(X[places], tags=tags)
    await observed.reporter.flush()
    events = await observed.stores.events.latest("pump", limit=1000)
    counts = Counter(event.source for event in events)
    assert counts == {"pump-a": EVENTS // 2, "pump-b": EVENTS // 2}


@pytest.mark.parametrize("answers", [1, 20])
@pytest.mark.parametrize("sources", [None, "ab"])
async def test_each_run_of_alarms_has_events_in_a_second(
    observed: Observed, answers: int, sources: str | None
) -> None:
    """Beside a long and severe fault, shorter and milder faults of the source have events, too."""
    parts = [np.full((4 * EVENTS, 3), 70.0)]
    for fault in range(20):
        parts += [np.zeros((40, 3)), np.full((4, 3), 40.0 + fault)]
    X = np.vstack(parts)
    for places in np.array_split(np.arange(len(X)), answers):
        tags = RowTags(sources=sources and tuple(sources[place % 2] for place in places))
        observed.score(X[places], tags=tags)
    await observed.reporter.flush()
    events = await observed.stores.events.latest("pump", limit=1000)
    assert len(events) == EVENTS
    assert {float(event.vector[0]) for event in events} == {70.0, *range(40, 60)}


async def test_pinned_versions_are_not_observed(observed: Observed) -> None:
    """Drift is about the champion's own traffic, not about pins or entities without a version."""
    pinned = champion(2, uid=observed.serving.uid, stored=observed.serving.pointer)
    observed.score(np.zeros((3, 3)), pinned)
    observed.score(np.zeros((3, 3)), replace(observed.serving, stands_for="pump:7"))
    await observed.reporter.flush()
    assert await observed.stores.live.read("pump") == []


async def test_rows_of_a_replaced_champion_are_counted(observed: Observed) -> None:
    """Rows that a thread judged during a swap are in the history."""
    assert observed.champions.install(champion(2, uid=observed.serving.uid))
    observed.score(np.zeros((3, 3)), observed.serving)
    await observed.reporter.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    (read,) = await observed.stores.traffic.read("pump")
    assert (summary.n, summary.version) == (3, 1)
    assert read.report is not None
    assert sum(tally.rows for tally in read.report.tallies) == 3


async def test_memory_is_bounded(observed: Observed) -> None:
    """Rows that do not fit between two flushes are counted and not kept."""
    for _ in range(15):
        observed.score(np.zeros((2000, 3)))
    await observed.reporter.flush()
    ((_, summary),) = await observed.stores.live.read("pump")
    assert (summary.n, summary.rows) == (30_000, SAMPLED)
    dropped = observed.registry.get_sample_value(
        "anamnesis_live_dropped_total", {"detector": "pump"}
    )
    assert dropped == 10_000


async def test_without_the_store_only_the_summary_is_lost(
    own_store: object, observed: Observed
) -> None:
    """If the store is away, only the summary is lost."""
    url: str = own_store.url  # type: ignore[attr-defined]
    stores = await Stores.open(Settings(redis_url=url), url)
    alone = Observed(stores, observed.serving)
    own_store.kill()  # type: ignore[attr-defined]
    alone.score(np.zeros((7, 3)))
    await alone.reporter.flush()
    dropped = alone.registry.get_sample_value("anamnesis_live_dropped_total", {"detector": "pump"})
    assert dropped == 7
    await stores.close()


async def reports(observed: Observed) -> list[Report]:
    """Return the reports that the store holds of the detector `pump`."""
    return [report.report for report in await observed.stores.traffic.read("pump") if report.report]


async def test_every_row_is_counted(observed: Observed) -> None:
    """Every row is counted, also those that a sample leaves out."""
    for _ in range(15):
        observed.score(np.zeros((2000, 3)))
    observed.score(np.full((5000, 3), 70.0))
    await observed.reporter.flush()
    (report,) = await reports(observed)
    assert sum(tally.rows for tally in report.tallies) == 35_000
    assert sum(tally.alarms for tally in report.tallies) == 5_000
    assert sum(count for tally in report.tallies for _, count in tally.bins) == 35_000
    (block,) = report.blocks
    assert (block.rows, len(block.positions) + block.unlisted) == (35_000, 5_000)
    assert block.positions[0] == 30_000
    assert block.positions[-1] == 34_999


async def test_kept_rows_name_their_events(observed: Observed) -> None:
    """The kept rows of a report name their events by id."""
    observed.score(np.vstack([np.zeros((3, 3)), np.full((1, 3), 70.0), np.zeros((2, 3))]))
    await observed.reporter.flush()
    (report,) = await reports(observed)
    ((position, kept_row),) = report.blocks[0].kept_rows
    (event,) = await observed.stores.events.latest("pump")
    assert (position, kept_row.event, kept_row.severity) == (3, event.id, event.severity)
    assert [attribution.feature for attribution in kept_row.leading] == [
        attribution.feature for attribution in event.attributions
    ]


async def test_rows_with_time_and_source_are_counted_there(observed: Observed) -> None:
    """Rows with time and source are counted there, and their events have both."""
    hour = time.time() // 3600 * 3600 - 7200
    tags = RowTags(
        np.array([hour + 60.0, hour + 120.0, hour + 120.0]), ("a", "b", "a"), ("x1", "x2", "x3")
    )
    X = np.array([[0.0] * 3, [70.0] * 3, [0.0] * 3], np.float32)
    serving = observed.serving
    columns = serving.version.judge(X, serving.threshold)
    observed.reporter.scored(Judged(serving, X, columns, tags=tags), 0.001)
    await observed.reporter.flush()
    (report,) = await reports(observed)
    assert {
        (tally.place * tally.step - hour, tally.rows, tally.alarms) for tally in report.tallies
    } == {(60.0, 1, 0), (120.0, 2, 1)}
    assert {(block.source, block.rows, block.positions) for block in report.blocks} == {
        ("a", 2, ()),
        ("b", 1, (0,)),
    }
    (event,) = await observed.stores.events.latest("pump")
    assert (event.source, event.timestamp, event.client_id) == ("b", hour + 120.0, "x2")


async def test_counts_wait_until_the_store_returns(own_store: object, observed: Observed) -> None:
    """Rows that were scored while the store was away are counted once when it returns."""
    url: str = own_store.url  # type: ignore[attr-defined]
    stores = await Stores.open(Settings(redis_url=url), url)
    detector = (await stores.detectors.put("pump", parse({})))[1]
    alone = Observed(stores, champion(1, uid=detector.uid))
    alone.score(np.zeros((5, 3)))
    await alone.reporter.flush()
    own_store.kill()  # type: ignore[attr-defined]
    for _ in range(3):
        alone.score(np.zeros((7, 3)))
        await alone.reporter.flush()
    own_store.start()  # type: ignore[attr-defined]
    alone.score(np.full((2, 3), 70.0))

    async def all_rows_are_counted() -> bool:
        await alone.reporter.flush()
        waiting = await reports(alone)
        return sum(tally.rows for report in waiting for tally in report.tallies) == 5 + 3 * 7 + 2

    await until(all_rows_are_counted)
    await stores.close()


async def test_a_repeated_report_is_stored_once(observed: Observed) -> None:
    """A report that is sent again without an answer is stored once."""
    observed.score(np.full((2, 3), 70.0))
    collected = observed.reporter._pending[observed.serving].collected
    report, events, _ = make_report(observed.serving, collected, (), time.time())
    for _ in range(3):
        assert await observed.stores.traffic.send("pump", "p1", 1, report, events)
    assert await observed.stores.traffic.send("pump", "p2", 1, report, events)
    assert len(await observed.stores.traffic.read("pump")) == 2
    assert len(await observed.stores.events.latest("pump")) == 4
    of_deleted = msgspec.structs.replace(report, uid="another")
    assert not await observed.stores.traffic.send("pump", "p1", 2, of_deleted, events)


async def test_a_report_has_the_heights_of_alarming_rows(
    observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A height is the score divided by the threshold, or the severity if the score has no zero."""
    X = np.array([[0.0] * 3, [40.0] * 3, [70.0] * 3], np.float32)
    threshold = observed.serving.threshold.value
    judged = observed.serving.version.judge(X, observed.serving.threshold)
    assert judged.is_anomaly.tolist() == [False, True, True]
    observed.score(X[:2])
    observed.score(X[2:])
    collected = observed.reporter._pending[observed.serving].collected
    for named, expected in (("auto", judged.severities), ("elbo", judged.scores / threshold)):
        monkeypatch.setattr(incident_rule, "FROM_ZERO", {named})
        report = make_report(observed.serving, collected, (), time.time()).report
        assert report.blocks[0].heights == pytest.approx(expected[1:])


async def test_in_a_long_outage_reports_are_joined(observed: Observed) -> None:
    """In a long outage the oldest reports are joined, and no count is lost."""
    outbox = Outbox()
    for number in range(1, 3 * UNSENT + 1):
        observed.score(np.full((1, 3), 70.0))
        collected = observed.reporter._pending.pop(observed.serving).collected
        outbox.put(number, make_report(observed.serving, collected, (), time.time()))
    assert len(outbox.waiting) <= UNSENT
    rows = sum(tally.rows for unsent in outbox.waiting for tally in unsent.content.report.tallies)
    assert rows == 3 * UNSENT
    numbers = [unsent.number for unsent in outbox.waiting]
    assert (numbers, numbers[-1]) == (sorted(numbers), 3 * UNSENT)
