"""Makes the metrics of an API process, and bounds how many detectors have series of their own."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from service.metric_files import LIVE
from service.telemetry.exposition import batched
from service.telemetry.shared_values import Shared

OF_DETECTOR = ("detector",)
_OTHER = "other"
_TOGETHER = 32  # samples in one piece of the page: about a quarter of a millisecond


class _SlicedMetric(MetricWrapperBase):
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


M = TypeVar("M", bound=_SlicedMetric)


class _SlicedCounter(_SlicedMetric, Counter):
    pass


class _SlicedGauge(_SlicedMetric, Gauge):
    pass


class SlicedHistogram(_SlicedMetric, Histogram):
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


class MetricFamilies:
    """The metrics of one process, on `registry`, with the prefix `anamnesis_`.

    `directory` is the folder that the API processes of this machine share, None if there is none.
    `place` is the number of this process among them. At most `detectors` detectors have series of
    their own; all others share one.
    """

    def __init__(
        self, registry: CollectorRegistry, directory: Path | None, place: int, detectors: int
    ) -> None:
        # Made before the first metric: `Shared` sets the class of the numbers of later metrics.
        self.shared = None if directory is None else Shared(directory, place)
        self._registry = registry
        self._detectors = detectors
        self._labels: set[str] = set()
        self._all: list[_SlicedMetric] = []
        self._of_detectors: list[_SlicedMetric] = []
        self._histograms: list[SlicedHistogram] = []

    def counter(self, name: str, text: str, labels: tuple[str, ...] = OF_DETECTOR) -> Counter:
        """Make a counter."""
        counter = _SlicedCounter(f"anamnesis_{name}", text, labels, registry=self._registry)
        return self._added(counter, labels)

    def gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Make a gauge."""
        gauge = _SlicedGauge(f"anamnesis_{name}", text, labels, registry=self._registry)
        return self._added(gauge, labels)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> SlicedHistogram:
        """Make a histogram for each detector."""
        histogram = SlicedHistogram(
            f"anamnesis_{name}", text, OF_DETECTOR, registry=self._registry, buckets=buckets
        )
        self._histograms.append(histogram)
        return self._added(histogram, OF_DETECTOR)

    def _added(self, family: M, labels: tuple[str, ...]) -> M:
        self._all.append(family)
        if "detector" in labels:
            self._of_detectors.append(family)
        return family

    def label(self, name: str) -> str:
        """Return the value of the label `detector` for this detector."""
        if name not in self._labels:
            if len(self._labels) >= self._detectors:
                return _OTHER
            self._labels.add(name)
        return name

    def listed_detectors(self) -> set[str]:
        """Return the detectors with series of their own, also those of an earlier process."""
        listed = self._labels if self.shared is None else self.shared.values_of("detector")
        return listed - {_OTHER}

    def forget(self, name: str) -> None:
        """Drop all series of a detector."""
        for metric in self._of_detectors:
            metric.remove_by_labels({"detector": name})
        if self.shared is not None:
            self.shared.forget(("detector", name))
        self._labels.discard(name)

    def forget_gauge(self, gauge: Gauge, name: str) -> None:
        """Drop a detector's series of one gauge, and its copy in the shared folder."""
        gauge.remove(name)
        if self.shared is not None:
            self.shared.numbers[LIVE].forget(("detector", name))

    def forget_histograms(self, names: Collection[str]) -> None:
        """Drop the histograms of some detectors."""
        for name in names:
            for metric in self._histograms:
                metric.remove(name)
            if self.shared is not None:
                self.shared.forget(("detector", name), "histogram")

    def slices(self) -> Iterator[Metric]:
        """Yield this process's metrics in pieces. See `exposition.Sliced`."""
        for metric in self._all:
            yield from metric.slices()
