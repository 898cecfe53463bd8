"""The metrics that an API process counts (prefix `anamnesis_`, label `detector`).

With several API processes, each copies its numbers to a shared folder. The process that is scraped
adds them up. `store_metrics` exports the state of the store.
"""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from models.version.judgement import Judgement
from service.domain.champion import Champion
from service.domain.swap_outcome import SwapOutcome
from service.scoring.core import Judged
from service.telemetry.exposition import Sliced, write_page
from service.telemetry.metric_families import OF_DETECTOR, MetricFamilies
from service.telemetry.side_work import SideWork

# From one vector in memory (50 us) to a full body of large vectors.
_SCORE_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
)  # fmt: skip
# 1 is exactly the threshold.
_SEVERITY = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 5, 10, 50)
_SWAP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_PENDING = 4096  # most answers that are counted together; about 0.2 s of traffic at full speed
_FLUSH_SECONDS = 0.1
# The histograms of so many unloaded detectors are dropped together, because each drop writes the
# copy in the shared folder anew.
_DROPPED_TOGETHER = 100


class Metrics:
    """Counters, histograms and gauges of one API process, on `registry`.

    `directory` is the folder that the API processes of this machine share, None if there is none.
    `place` is the number of this process among them.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        directory: Path | None = None,
        place: int = 0,
        detectors: int = 1000,
    ) -> None:
        self.registry = registry
        self.families = families = MetricFamilies(registry, directory, place, detectors)
        self._one_scrape = asyncio.Lock()
        self._pending: list[tuple[Champion, Judgement, float, int]] = []
        # Called at every flush with all detectors that were scored.
        self.on_scored: Callable[[Collection[str]], None] = lambda _: None
        self._unloaded: set[str] = set()  # unloaded detectors whose histograms still exist
        counter, gauge, histogram = families.counter, families.gauge, families.histogram
        self._scored = counter("vectors_scored", "Vectors scored.")
        self._anomalies = counter("anomalies", "Vectors that were anomalies.")
        self._seconds = histogram(
            "score_duration_seconds", "Time to parse, judge and answer a request.", _SCORE_SECONDS
        )
        self._severity = histogram("severity", "log(p) / log(alpha) of scored vectors.", _SEVERITY)
        self._swap = histogram("swap_duration_seconds", "Time to load a version.", _SWAP_SECONDS)
        self._normal = counter(
            "normal_vectors", "Vectors sent as normal, by outcome.", ("detector", "outcome")
        )
        self._artifact_failures = counter("artifact_failures", "Versions that could not be loaded.")
        self._store_regressions = counter(
            "store_regressions",
            "Times the store held an older state of a detector than this process, or none.",
        )
        self._dropped = counter(
            "live_dropped", "Scored vectors that drift and events lack: no room, or no store."
        )
        failures = counter(
            "side_work_failures", "Failures of work beside scoring, by part.", ("part",)
        )
        self.side_work = SideWork(lambda part: failures.labels(part).inc())
        self._loads = counter("champion_loads", "Champions loaded, by source.", ("source",))
        self._evictions = counter(
            "champion_evictions", "Champions unloaded to make room for others.", ()
        )
        self._loaded = gauge(
            "loaded_generation", "Generation that an API process serves.", OF_DETECTOR
        )
        self._champions = gauge("loaded_champions", "Champions that an API process holds.")
        self._bytes = gauge("loaded_bytes", "Approximate memory of the loaded champions.")

    def scored(self, judged: Judged, seconds: float) -> None:
        """Note the answers to the requests of `judged`. The next `flush` counts them."""
        self._pending.append((judged.champion, judged.judgement, seconds, judged.requests))
        if len(self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Count the noted answers. Never raises."""
        with self.side_work.part("metrics"):
            self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        by_name: dict[str, list[tuple[Judgement, float, int]]] = {}
        for champion, judgement, seconds, requests in pending:
            by_name.setdefault(champion.name, []).append((judgement, seconds, requests))
        self.on_scored(by_name)
        for name, noted in by_name.items():
            label = self.families.label(name)
            severities = np.concatenate([judgement.severities for judgement, *_ in noted])
            anomalies = sum(int(np.count_nonzero(judgement.is_anomaly)) for judgement, *_ in noted)
            self._scored.labels(label).inc(len(severities))
            self._anomalies.labels(label).inc(anomalies)
            self._severity.labels(label).observe_all(severities)
            took, times = zip(*((took, times) for _, took, times in noted), strict=True)
            self._seconds.labels(label).observe_all(np.repeat(took, times))

    async def run(self) -> None:
        """Flush ten times a second until cancelled, so that other processes can be scraped."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self.flush()
            if self.families.shared is not None:
                with self.side_work.part("metrics_folder"):
                    await asyncio.to_thread(self.families.shared.copy)

    def ingested(self, name: str, outcome: str, vectors: int) -> None:
        """Count vectors of a normal batch: accepted, quarantined, duplicate or rejected."""
        if vectors:
            self._normal.labels(self.families.label(name), outcome).inc(vectors)

    def swap(self, outcome: SwapOutcome) -> None:
        """Count the outcome of refreshing a detector."""
        name, change = outcome.name, outcome.change
        if outcome.champion is not None:
            self._count_swap(outcome.champion, outcome.seconds, outcome.loaded_from)
        elif change == "refused":
            self.artifact_failed(name)
        elif change == "regressed":
            self._store_regressions.labels(self.families.label(name)).inc()
        elif change == "deleted":
            self.forget_detector(name)
        if outcome.detector is not None and outcome.detector.champion is None:
            self._create_counters(name)
        for gone in outcome.evicted:
            self._count_eviction(gone)

    def _count_swap(self, champion: Champion, seconds: float | None, source: str) -> None:
        if source != "memory":
            self._loads.labels(source).inc()
        self._unloaded.discard(champion.name)
        label = self.families.label(champion.name)
        self._loaded.labels(label).set(champion.generation)
        if seconds is not None:
            self._swap.labels(label).observe(seconds)
        self._create_counters(champion.name)

    def _create_counters(self, name: str) -> None:
        """Create the counters of a detector with the value zero."""
        label = self.families.label(name)
        for counter in (self._scored, self._anomalies):
            counter.labels(label)
        for outcome in ("accepted", "quarantined", "duplicate", "rejected"):
            self._normal.labels(label, outcome)

    def set_loaded(self, champions: int, size: int) -> None:
        """Set the number of loaded champions, and their bytes."""
        self._champions.set(champions)
        self._bytes.set(size)

    def _count_eviction(self, name: str) -> None:
        """Count that the champion of a detector was unloaded to free memory."""
        self._evictions.inc()
        self.families.forget_gauge(self._loaded, name)
        self._unloaded.add(name)
        if len(self._unloaded) >= _DROPPED_TOGETHER:  # histograms take most of the metrics' memory
            self.flush()
            self.families.forget_histograms(self._unloaded)
            self._unloaded = set()

    def forget_detector(self, name: str) -> None:
        """Drop all numbers of a deleted detector, so that other detectors can have series."""
        self.flush()
        self.families.forget(name)
        self._unloaded.discard(name)

    def keep_only(self, names: Collection[str]) -> None:
        """Drop the numbers that an earlier process left about detectors that are not in `names`."""
        for name in self.families.listed_detectors() - set(names):
            self.forget_detector(name)

    def artifact_failed(self, name: str) -> None:
        """Count a version that could not be loaded."""
        self._artifact_failures.labels(self.families.label(name)).inc()

    def dropped(self, name: str, vectors: int) -> None:
        """Count scored vectors that drift and events leave out."""
        self._dropped.labels(self.families.label(name)).inc(vectors)

    async def expose(self, state: Sliced) -> bytes:
        """Return the page for Prometheus: counts of all processes, and the gauges of `state`."""
        async with self._one_scrape:
            self.flush()
            return await write_page(self.families.shared or self.families, state)

    def close(self) -> None:
        """Remove this process's gauges from the shared folder."""
        self.flush()
        if self.families.shared is not None:
            with self.side_work.part("metrics_folder"):
                self.families.shared.close()
