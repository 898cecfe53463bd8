"""Metrics of the store's state, as this process last read it.

Every API process reads the same state, so any of them may answer the scrape.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from msgspec.structs import asdict
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service import log
from service.domain.champion import Champion
from service.domain.detector import Detector
from service.scoring.champions import Champions
from service.store.due_index import Work
from service.telemetry.exposition import batched
from service.timestamps import unix_seconds

_log = log.get(__name__)
T = TypeVar("T")
Named = TypeVar("Named", Detector, Champion)

_TOGETHER = 8  # detectors in one piece of the page: at most half a millisecond

DRIFT_STATES = ("none", "known_regime", "new_regime", "degraded")
OUTCOMES = ("promoted", "rejected", "failed")
# The metrics of a drift test's statistic and threshold.
_TESTS = {
    "martingale": "drift_log_martingale",
    "adwin": "drift_score",
    "anomalies": "drift_burst",
    "inputs": "drift_input",
    "regimes": "drift_regime",
}

_WORK = {
    "due": "Detectors that are due for a retraining and wait.",
    "running": "Detectors that are being retrained.",
    "oldest_seconds": "Time that the due detector with the longest wait has waited.",
}


class StoreView(Protocol):
    """The state of the store as a whole."""

    redis_up: bool
    worker_heartbeat: float | None
    work: Work | None


class StoreMetrics(Collector):
    """Collects buffers, champions, retrainings and drift of every detector."""

    def __init__(self, champions: Champions, store: StoreView, *, buffer_bound: int) -> None:
        self._champions = champions
        self._store = store
        self._buffer_bound = buffer_bound

    def collect(self) -> Iterator[Metric]:
        """Yield the families. Nothing is read from the store."""
        yield from self._of_the_store()
        yield from _of_detectors(self._champions.detectors())
        yield from _of_champions(self._champions.loaded())

    def slices(self) -> Iterator[Metric]:
        """Yield the families in pieces. A piece has a few detectors."""
        yield from self._of_the_store()
        yield from _of_detectors(())  # every family appears, even without detectors
        yield from _of_champions(())
        for detectors in batched(iter(self._champions.detectors()), _TOGETHER):
            yield from _of_detectors(detectors)
        for champions in batched(iter(self._champions.loaded()), _TOGETHER):
            yield from _of_champions(champions)

    def _of_the_store(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "anamnesis_redis_up", "1 when the store answers.", value=float(self._store.redis_up)
        )
        if self._store.worker_heartbeat is not None:
            yield GaugeMetricFamily(
                "anamnesis_worker_heartbeat_timestamp_seconds",
                "When a worker last reported.",
                value=self._store.worker_heartbeat,
            )
        if self._store.work is not None:
            for quantity, count in asdict(self._store.work).items():
                yield GaugeMetricFamily(
                    f"anamnesis_work_{quantity}", _WORK[quantity], value=float(count)
                )
        yield GaugeMetricFamily(
            "anamnesis_buffer_bound_vectors",
            "Most vectors that a detector buffers.",
            value=self._buffer_bound,
        )


def _of_detectors(detectors: Sequence[Detector]) -> Iterator[Metric]:
    """Yield the families of the detectors' states in the store."""
    yield from _gauges(_DETECTOR_GAUGES, detectors)
    yield _live_regimes(detectors)
    yield _counter(
        detectors, "retrains", "outcome", "Retrainings by outcome.",
        lambda detector: {outcome: getattr(detector.retrains, outcome) for outcome in OUTCOMES},
    )  # fmt: skip
    yield _counter(
        detectors, "incidents", "state", "Incidents by state.",
        lambda detector: {"opened": detector.incidents.opened, "closed": detector.incidents.closed},
    )  # fmt: skip
    yield _counter(
        detectors, "webhook_messages", "outcome", "Messages to the webhook's receiver.",
        lambda detector: {"sent": detector.messages.sent, "dropped": detector.messages.dropped},
    )  # fmt: skip
    yield from _drift_families(detectors)


def _of_champions(champions: Sequence[Champion]) -> Iterator[Metric]:
    """Yield the families of the champions that this process serves."""
    yield from _gauges(_CHAMPION_GAUGES, champions)
    forgetting = _gauge(
        "regime_forgetting_ratio",
        "Share of a regime's replayed vectors that the champion alarms on, minus its parent's.",
        "regime",
    )
    for champion in champions:
        for number, ratio in _read_safely(champion.name, partial(_most_forgotten, champion)) or ():
            forgetting.add_metric([champion.name, str(number)], ratio)
    yield forgetting


def _forgetting(champion: Champion) -> float | None:
    """Return the share of replayed old normals that alarm, minus the same share of the parent."""
    old = champion.version.lineage.evidence.old
    return None if old is None else old.more


# Gauges of a champion: the help text, and the function that reads the value.
_CHAMPION_GAUGES: dict[str, tuple[str, Callable[[Champion], float | None]]] = {
    "threshold": ("Score from which a vector is an anomaly.", lambda c: c.threshold.value),
    "champion_trained_timestamp_seconds": ("When the champion was made.", lambda c: c.trained_at),
    "forgetting_ratio": (
        "Share of replayed old normals that the champion alarms on, minus its parent's share.",
        _forgetting,
    ),
}


# At most so many regimes of a detector have series: those that changed most, or are most frequent.
REGIMES = 5


def _live_regimes(detectors: Sequence[Detector]) -> Metric:
    """Return the live shares of each detector's most frequent regimes."""
    live = _gauge("regime_live_ratio", "Share of live vectors in a regime, or in `none`.", "regime")
    for detector in detectors:
        for regime, share in _read_safely(detector.name, partial(_live_shares, detector)) or ():
            live.add_metric([detector.name, regime], share)
    return live


def _read_safely(name: str, read: Callable[[], T]) -> T | None:
    """Return the result of `read`. If it fails, log that and return None.

    So a fault of one detector does not take away the metrics of the others.
    """
    try:
        return read()
    except Exception:  # noqa: BLE001 - see above
        _log.exception("making a detector's metrics failed", detector=name)
        return None


def _most_forgotten(champion: Champion) -> list[tuple[int, float]]:
    """Return the regimes with the most forgetting, each with its forgetting."""
    all_regimes = [(regime.number, regime.about.forgetting) for regime in champion.version.regimes]
    changed = sorted(((n, x) for n, x in all_regimes if x is not None), key=lambda pair: -pair[1])
    return changed[:REGIMES]


def _live_shares(detector: Detector) -> list[tuple[str, float]]:
    """Return the most frequent regimes of live vectors, each with its share."""
    statistics = detector.drift.statistics
    if statistics is None or (mix := statistics.regimes) is None:
        return []
    shares = [(regime.live or 0.0, str(regime.regime)) for regime in mix.known]
    most = sorted((pair for pair in shares if pair[0]), reverse=True)[:REGIMES]
    shares_of_none = [] if mix.none is None else [("none", mix.none)]
    return shares_of_none + [(regime, share) for share, regime in most]


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"anamnesis_{name}", text, labels=("detector", *labels))


# Gauges of a detector's state: the help text, and the function that reads the value.
_DETECTOR_GAUGES: dict[str, tuple[str, Callable[[Detector], float | None]]] = {
    "champion_version": ("Number of the version that serves.", lambda detector: detector.champion),
    "champion_generation": ("Moves of the champion pointer.", lambda detector: detector.generation),
    "buffer_vectors": ("Vectors that wait to be learned.", lambda detector: detector.buffered),
    "buffer_oldest_timestamp_seconds": (
        "When the oldest buffered vector came.", lambda detector: detector.buffer_oldest
    ),
    "parked_vectors": (
        "Vectors of rejected experiences, waiting for a person.", lambda detector: detector.parked
    ),
    "quarantined_vectors": (
        "Vectors that admission held back, waiting for a person.",
        lambda detector: detector.quarantined,
    ),
    "incident_open": (
        "Incidents that are open and page somebody: no person has decided, and no mute is on.",
        lambda detector: detector.incidents.open,
    ),
    "incident_unreported": (
        "Open incidents that nobody was told of: their rows were over an hour old when they came.",
        lambda detector: detector.incidents.unreported,
    ),
    "drift_updated_timestamp_seconds": (
        "When a worker last looked at the detector's scored rows and computed its drift.",
        lambda detector: unix_seconds(detector.drift.at),
    ),
    "muted_until_timestamp_seconds": (
        "When the mute of the detector ends; 0 if it is not muted.",
        lambda detector: detector.mute.until if detector.mute else 0,
    ),
    "learned_vectors": (
        "Vectors that the champion's lineage learned.",
        lambda detector: detector.learned,
    ),
    "training_progress_ratio": (
        "Share of the running retraining that is done.",
        lambda detector: detector.retraining.progress,
    ),
    "retrain_duration_seconds": (
        "Time that the last retraining took.",
        lambda detector: detector.last_retraining.seconds if detector.last_retraining else None,
    ),
}  # fmt: skip


def _gauges(
    table: Mapping[str, tuple[str, Callable[[Named], float | None]]], subjects: Sequence[Named]
) -> Iterator[Metric]:
    """Yield the gauges of `table`, with one series for each subject that has a value."""
    for name, (text, read) in table.items():
        family = _gauge(name, text)
        for subject in subjects:
            value = _read_safely(subject.name, partial(read, subject))
            if value is not None:
                family.add_metric([subject.name], float(value))
        yield family


def _counter(
    detectors: Sequence[Detector],
    name: str,
    label: str,
    text: str,
    read: Callable[[Detector], Mapping[str, int]],
) -> Metric:
    """Return a counter with one series for each detector and each value of `label`."""
    family = CounterMetricFamily(f"anamnesis_{name}", text, labels=("detector", label))
    for detector in detectors:
        for value, count in read(detector).items():
            family.add_metric([detector.name, value], count)
    return family


def _drift_families(detectors: Sequence[Detector]) -> Iterator[Metric]:
    """Yield the drift state, and the statistic and threshold of each drift test."""
    state = _gauge("drift_state", "1 for the drift state that holds.", "state")
    feature = _gauge(
        "drift_feature_statistic", "Distance of each feature that moved most.", "feature"
    )
    bound = _gauge("drift_feature_threshold", "Distance from which a feature alarms.", "feature")
    tests = {
        test: (
            _gauge(
                name if name == "drift_log_martingale" else f"{name}_statistic",
                f"Statistic of the {test} test.",
            ),
            _gauge(f"{name}_threshold", f"Statistic from which the {test} test alarms."),
        )
        for test, name in _TESTS.items()
    }

    def add(detector: Detector) -> None:
        drift = detector.drift
        for name in DRIFT_STATES:
            state.add_metric([detector.name, name], float(name == drift.state))
        if drift.statistics is None:
            return
        for test, (statistic, threshold) in tests.items():
            if test_finding := getattr(drift.statistics, test):
                statistic.add_metric([detector.name], test_finding.statistic)
                threshold.add_metric([detector.name], test_finding.threshold)
        for finding in drift.statistics.features:
            feature.add_metric([detector.name, finding.feature], finding.statistic)
            bound.add_metric([detector.name, finding.feature], finding.threshold)

    for detector in detectors:
        _read_safely(detector.name, partial(add, detector))
    yield from (state, feature, bound)
    for pair in tests.values():
        yield from pair
