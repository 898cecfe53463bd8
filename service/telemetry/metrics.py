"""The metrics that an API process counts (prefix `anamnesis_`, label `detector`).

With several API processes, each copies its numbers to a shared folder. The process that is scraped
adds them up. `store_metrics` exports the state of the store.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from models.version.judgement import Judgement
from service.domain.champion import Champion
from service.domain.swap_outcome import SwapOutcome
from service.metric_files import LIVE
from service.scoring.core import Judged
from service.telemetry.exposition import Sliced, batched, written
from service.telemetry.shared_values import Shared
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
# Detectors whose histograms are dropped together, since the copy is rewritten each time.
_UNLOADED = 100
_OTHER = "other"
_TOGETHER = 32  # samples in one piece of the page: about a quarter of a millisecond


class _Sliced(MetricWrapperBase):
    """A metric whose samples are collected in small pieces."""

    def slices(self) -> Iterator[Metric]:
        """Yield the family in pieces. See `exposition.Sliced`."""
        (whole,) = self.describe()
        yield whole
        for samples in batched(iter(self._samples()), _TOGETHER):
            piece = Metric(whole.name, whole.documentation, whole.type)
            for suffix, labels, value, *_ in samples:
                piece.add_sample(self._name + suffix, labels, value)
            yield piece


M = TypeVar("M", bound=_Sliced)


class _Counter(_Sliced, Counter):
    pass


class _Gauge(_Sliced, Gauge):
    pass


class _Histogram(_Sliced, Histogram):
    """A histogram that takes many observations at once."""

    def observe_all(self, values: np.ndarray) -> None:
        """Observe all `values` (n,)."""
        # `observe` would cost a microsecond for each value. A bucket includes its upper bound.
        up_to = np.sort(values).searchsorted(self._upper_bounds, side="right")
        counts = np.diff(up_to, prepend=0)
        for bucket, count in zip(self._buckets, counts.tolist(), strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(float(values.sum()))


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
        self._shared = None if directory is None else Shared(directory, place)
        self._labels: set[str] = set()
        self._detectors = detectors
        self._one_scrape = asyncio.Lock()
        self._pending: list[tuple[Champion, Judgement, float, int]] = []
        # Called at every flush with all detectors that were scored.
        self.used: Callable[[Collection[str]], None] = lambda _: None
        label = ("detector",)

        self._own: list[_Sliced] = []
        self._of_detectors: list[_Sliced] = []
        self._histograms: list[_Histogram] = []
        self._unloaded: set[str] = set()  # unloaded detectors whose histograms still exist

        def own(made: M, labels: tuple[str, ...]) -> M:
            self._own.append(made)
            if "detector" in labels:
                self._of_detectors.append(made)
            return made

        def counter(name: str, text: str, labels: tuple[str, ...] = label) -> Counter:
            return own(_Counter(f"anamnesis_{name}", text, labels, registry=registry), labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> _Histogram:
            made = _Histogram(f"anamnesis_{name}", text, label, registry=registry, buckets=buckets)
            self._histograms.append(made)
            return own(made, label)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return own(_Gauge(f"anamnesis_{name}", text, labels, registry=registry), labels)

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
        self._loaded = gauge("loaded_generation", "Generation that an API process serves.", label)
        self._champions = gauge("loaded_champions", "Champions that an API process holds.")
        self._bytes = gauge("loaded_bytes", "Approximate memory of these champions.")

    def scored(self, judged: Judged, seconds: float) -> None:
        """Note the answers to the requests of `judged`. The next `flush` counts them."""
        self._pending.append((judged.champion, judged.columns, seconds, judged.requests))
        if len(self._pending) >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Count the noted answers. Never raises."""
        with self.side_work.part("metrics"):
            self._flush()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        by_name: dict[str, list[tuple[Judgement, float, int]]] = {}
        for champion, columns, seconds, requests in pending:
            by_name.setdefault(champion.name, []).append((columns, seconds, requests))
        self.used(by_name)
        for name, noted in by_name.items():
            label = self._label(name)
            severities = np.concatenate([columns.severities for columns, *_ in noted])
            anomalies = sum(int(np.count_nonzero(columns.is_anomaly)) for columns, *_ in noted)
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
            if self._shared is not None:
                with self.side_work.part("metrics_folder"):
                    await asyncio.to_thread(self._shared.copy)

    def ingested(self, name: str, outcome: str, vectors: int) -> None:
        """Count vectors of a normal batch: accepted, quarantined, duplicate or rejected."""
        if vectors:
            self._normal.labels(self._label(name), outcome).inc(vectors)

    def swap(self, outcome: SwapOutcome) -> None:
        """Count the outcome of refreshing a detector."""
        name, change = outcome.name, outcome.change
        if outcome.champion is not None:
            self._swapped(outcome.champion, outcome.seconds, outcome.source)
        elif change == "refused":
            self.artifact_failed(name)
        elif change == "regressed":
            self._store_regressions.labels(self._label(name)).inc()
        elif change == "deleted":
            self.forgotten(name)
        if outcome.detector is not None and outcome.detector.champion is None:
            self._announced(name)
        for gone in outcome.evicted:
            self._evicted(gone)

    def _swapped(self, champion: Champion, seconds: float | None, source: str) -> None:
        if source != "memory":
            self._loads.labels(source).inc()
        self._unloaded.discard(champion.name)
        label = self._label(champion.name)
        self._loaded.labels(label).set(champion.generation)
        if seconds is not None:
            self._swap.labels(label).observe(seconds)
        self._announced(champion.name)

    def _announced(self, name: str) -> None:
        """Create the counters of a detector with the value zero."""
        label = self._label(name)
        for counter in (self._scored, self._anomalies):
            counter.labels(label)
        for outcome in ("accepted", "quarantined", "duplicate", "rejected"):
            self._normal.labels(label, outcome)

    def holds(self, champions: int, size: int) -> None:
        """Set the number of loaded champions, and their bytes."""
        self._champions.set(champions)
        self._bytes.set(size)

    def _evicted(self, name: str) -> None:
        """Count that the champion of a detector was unloaded to free memory."""
        self._evictions.inc()
        self._loaded.remove(name)
        if self._shared is not None:
            self._shared.numbers[LIVE].forget(("detector", name))
        self._unloaded.add(name)
        if len(self._unloaded) >= _UNLOADED:
            self._sweep()

    def _sweep(self) -> None:
        """Drop the histograms of unloaded detectors, which take most of the metrics' memory."""
        self.flush()
        names, self._unloaded = self._unloaded, set()
        for name in names:
            for metric in self._histograms:
                metric.remove(name)
            if self._shared is not None:
                self._shared.forget(("detector", name), "histogram")

    def forgotten(self, name: str) -> None:
        """Drop all numbers of a deleted detector, so that other detectors can have series."""
        self.flush()
        for metric in self._of_detectors:
            metric.remove_by_labels({"detector": name})
        if self._shared is not None:
            self._shared.forget(("detector", name))
        self._labels.discard(name)
        self._unloaded.discard(name)

    def keep_only(self, names: Collection[str]) -> None:
        """Drop numbers of an earlier process about detectors that no longer exist."""
        known = self._labels if self._shared is None else self._shared.known("detector")
        for name in known - set(names) - {_OTHER}:
            self.forgotten(name)

    def artifact_failed(self, name: str) -> None:
        """Count a version that could not be loaded."""
        self._artifact_failures.labels(self._label(name)).inc()

    def dropped(self, name: str, vectors: int) -> None:
        """Count scored vectors that drift and events leave out."""
        self._dropped.labels(self._label(name)).inc(vectors)

    async def expose(self, state: Sliced) -> bytes:
        """Return the page for Prometheus: counts of all processes, and the gauges of `state`."""
        async with self._one_scrape:
            self.flush()
            return await written(self if self._shared is None else self._shared, state)

    def slices(self) -> Iterator[Metric]:
        """Yield this process's metrics in pieces. See `exposition.Sliced`."""
        for metric in self._own:
            yield from metric.slices()

    def close(self) -> None:
        """Remove this process's gauges from the shared folder."""
        self.flush()
        if self._shared is not None:
            with self.side_work.part("metrics_folder"):
                self._shared.close()

    def _label(self, name: str) -> str:
        # Series of deleted detectors stay. Above the bound, further detectors share one series.
        if name not in self._labels:
            if len(self._labels) >= self._detectors:
                return _OTHER
            self._labels.add(name)
        return name
