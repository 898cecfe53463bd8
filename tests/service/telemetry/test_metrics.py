"""The metrics of a process, and of several processes together."""

import asyncio
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.drift.finding import MixFinding, RegimeShare, Statistics
from models.version.judgement import Judgement
from service.domain.drift_report import Drift
from service.domain.swap_outcome import SwapOutcome
from service.scoring.champions import Champions
from service.scoring.core import Judged
from service.store.due_index import Work
from service.telemetry.metrics import Metrics
from service.telemetry.store_metrics import StoreMetrics, _live_regimes
from tests.service.trained import champion


class Store:
    """A view of a store that is up."""

    redis_up = True
    worker_heartbeat: float | None = 5.0
    work: Work | None = Work(3, 2, 1.5)


def columns(*severities: float) -> Judgement:
    """Return a judgement with these severities."""
    s = np.array(severities)
    return Judgement(s, s, s, s >= 1)


def state() -> StoreMetrics:
    """Return the metrics of a store without detectors."""
    return StoreMetrics(Champions(1), Store(), buffer_bound=100)


def page_of(metrics: Metrics) -> str:
    """Return the page of a scrape."""
    return asyncio.run(metrics.expose(state())).decode()


def test_answers_are_counted_in_the_next_scrape() -> None:
    """The next scrape has the vectors, anomalies, severities and durations."""
    metrics = Metrics(CollectorRegistry())
    X = np.zeros((2, 3), np.float32)
    metrics.scored(Judged(champion(), X, columns(0.5, 1.0)), 0.002)
    metrics.scored(Judged(champion(), X, columns(0.2, 60.0)), 0.004)
    page = page_of(metrics)
    for line in (
        'anamnesis_vectors_scored_total{detector="pump"} 4.0',
        'anamnesis_anomalies_total{detector="pump"} 2.0',
        'anamnesis_severity_bucket{detector="pump",le="0.5"} 2.0',
        'anamnesis_severity_bucket{detector="pump",le="1.0"} 3.0',
        'anamnesis_severity_bucket{detector="pump",le="50.0"} 3.0',
        'anamnesis_severity_bucket{detector="pump",le="+Inf"} 4.0',
        'anamnesis_severity_sum{detector="pump"} 61.7',
        'anamnesis_score_duration_seconds_count{detector="pump"} 2.0',
        'anamnesis_score_duration_seconds_bucket{detector="pump",le="0.0025"} 1.0',
        "anamnesis_redis_up 1.0",
        "anamnesis_worker_heartbeat_timestamp_seconds 5.0",
        "anamnesis_work_due 3.0",
        "anamnesis_work_running 2.0",
        "anamnesis_work_oldest_seconds 1.5",
        "anamnesis_buffer_bound_vectors 100.0",
    ):
        assert line in page


def test_names_beyond_the_bound_share_one_series() -> None:
    """Beyond the bound all further names share one series."""
    metrics = Metrics(CollectorRegistry(), detectors=2)
    for name in ("a", "b", "c", "d"):
        metrics.ingested(name, "accepted", 1)
    page = page_of(metrics)
    assert 'detector="other",outcome="accepted"} 2.0' in page
    assert 'detector="c"' not in page


def test_forgetting_is_read_from_the_champion() -> None:
    """The metric has a version's alarms on replayed old normals; a first version has none."""
    champions = Champions(1)
    champions.install(champion(2))
    champions.install(champion(1, name="first"))
    families = {f.name: f for f in StoreMetrics(champions, Store(), buffer_bound=1).collect()}
    (sample,) = families["anamnesis_forgetting_ratio"].samples
    old = champion(2).version.lineage.evidence.old
    assert sample.labels == {"detector": "pump"}
    assert sample.value == old.candidate - old.champion
    regimes = families["anamnesis_regime_forgetting_ratio"].samples
    assert {sample.labels["detector"] for sample in regimes} == {"pump"}
    assert {sample.labels["regime"] for sample in regimes} <= {
        str(regime.number) for regime in champion(2).version.regimes
    }


def test_the_five_largest_regimes_have_live_shares() -> None:
    """Of seven regimes the five largest are exported, and the share of no regime."""
    shares = tuple(RegimeShare(n, 0.1, n / 100, "present") for n in range(1, 8))
    mix = MixFinding(statistic=0.1, threshold=0.2, alarm=False, none=0.02, known=shares)
    drift = Drift("none", statistics=Statistics(features=(), regimes=mix))
    detectors = [SimpleNamespace(name="pump", drift=drift)]
    samples = _live_regimes(detectors).samples
    assert {s.labels["regime"]: s.value for s in samples} == {
        "none": 0.02, "7": 0.07, "6": 0.06, "5": 0.05, "4": 0.04, "3": 0.03,
    }  # fmt: skip


PROCESS = """
import numpy as np
from pathlib import Path
from prometheus_client import CollectorRegistry
from models.version.judgement import Judgement
from service.domain.swap_outcome import SwapOutcome
from service.scoring.core import Judged
from service.telemetry.metrics import Metrics

class Champion:
    name, generation = "pump", 3

s = np.array([0.5, 2.0])
metrics = Metrics(CollectorRegistry(), directory=Path({directory!r}), place={place})
metrics.scored(Judged(Champion, np.zeros((2, 3)), Judgement(s, s, s, s >= 1)), 0.001)
metrics.swap(SwapOutcome("pump", "swapped", champion=Champion, seconds=0.01))
metrics.flush()
metrics.families.shared.copy()
if {scrape}:
    class Nothing:
        def slices(self):
            return ()
    import asyncio; print(asyncio.run(metrics.expose(Nothing())).decode())
"""


def process(folder: Path, place: int, *, scrape: bool = False) -> str:
    """Run a process that counts two vectors; return its scrape."""
    return subprocess.run(
        [sys.executable, "-c", PROCESS.format(directory=str(folder), place=place, scrape=scrape)],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_counters_of_all_processes_are_added(tmp_path: Path) -> None:
    """Any process has all counts in its scrape, and the gauges of living processes."""
    process(tmp_path, 0)
    page = process(tmp_path, 1, scrape=True)
    assert 'anamnesis_vectors_scored_total{detector="pump"} 4.0' in page
    assert 'anamnesis_severity_bucket{detector="pump",le="+Inf"} 4.0' in page
    assert 'anamnesis_severity_count{detector="pump"} 4.0' in page
    assert 'anamnesis_loaded_generation{detector="pump",process="0"} 3.0' in page
    assert 'anamnesis_loaded_generation{detector="pump",process="1"} 3.0' in page


def test_a_replacing_process_continues_the_counters(tmp_path: Path) -> None:
    """A process that replaces a dead one continues its counters, and not its gauges."""
    for _ in range(3):
        page = process(tmp_path, 0, scrape=True)
    assert 'anamnesis_vectors_scored_total{detector="pump"} 6.0' in page
    assert page.count("anamnesis_loaded_generation{") == 1
    assert len(list(tmp_path.iterdir())) == 4


def test_an_api_process_imports_no_training_library() -> None:
    """The application does not import torch, scikit-learn or similar libraries."""
    code = (
        "import sys, service.api.app; "
        "print([m for m in ('torch', 'sklearn', 'scipy.stats', 'matplotlib', 'river', 'pandas')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert result.stdout.strip() == "[]"


def _count_everything(metrics: Metrics, name: str) -> None:
    """Count something in every family with the label `detector`."""
    served = champion(name=name)
    metrics.swap(SwapOutcome(name, "swapped", champion=served, loaded_from="store", seconds=0.01))
    metrics.scored(Judged(served, np.zeros((1, 3), np.float32), columns(2.0)), 0.001)
    metrics.ingested(name, "accepted", 1)
    metrics.artifact_failed(name)
    metrics.swap(SwapOutcome(name, "regressed"))
    metrics.dropped(name, 1)
    metrics.flush()


@pytest.mark.parametrize("shared", [False, True])
def test_a_deleted_detector_leaves_no_series(tmp_path: Path, shared: bool) -> None:
    """A deleted detector leaves no series in any family or file, and its room is free."""
    metrics = Metrics(CollectorRegistry(), directory=tmp_path if shared else None, detectors=2)
    _count_everything(metrics, "pump")
    families = page_of(metrics).count('detector="pump"')
    assert families > 20
    for number in range(5):
        _count_everything(metrics, f"other-{number}")
        metrics.forget_detector(f"other-{number}")
        if metrics.families.shared is not None:
            metrics.families.shared.copy()
    page = page_of(metrics)
    assert 'detector="other' not in page
    assert page.count('detector="pump"') == families
    if metrics.families.shared is not None:
        assert len(metrics.families.shared.numbers["total"].names) <= 2 * families
        sibling = Metrics(CollectorRegistry(), directory=tmp_path, place=1)
        page = page_of(sibling)
        assert 'anamnesis_vectors_scored_total{detector="pump"} 1.0' in page
        assert "other-" not in page


@pytest.mark.parametrize("shared", [False, True])
def test_unloaded_detectors_leave_their_counters_alone(tmp_path: Path, shared: bool) -> None:
    """Histograms of unloaded detectors are removed, a hundred at a time; counters stay."""
    metrics = Metrics(CollectorRegistry(), directory=tmp_path if shared else None)
    for number in range(101):
        _count_everything(metrics, f"cold-{number}")
        metrics.swap(SwapOutcome("hot", evicted=(f"cold-{number}",)))
        if number == 50:
            loaded_again = champion(name="cold-7")
            metrics.swap(
                SwapOutcome("cold-7", "swapped", champion=loaded_again, loaded_from="disk")
            )
    page = page_of(metrics)
    for number in range(101):
        for metric in ("severity", "score_duration_seconds", "swap_duration_seconds"):
            of_it = f'anamnesis_{metric}_count{{detector="cold-{number}"}}'
            assert (of_it in page) == (number == 7)
        assert f'anamnesis_vectors_scored_total{{detector="cold-{number}"}} 1.0' in page
    if metrics.families.shared is not None:
        metrics.families.shared.copy()
        sibling = Metrics(CollectorRegistry(), directory=tmp_path, place=1)
        assert 'severity_count{detector="cold-9"}' not in page_of(sibling)


def test_a_restart_drops_series_of_deleted_detectors(tmp_path: Path) -> None:
    """A restarted process keeps only the series of existing detectors."""
    before = Metrics(CollectorRegistry(), directory=tmp_path)
    for name in ("pump", "gone"):
        _count_everything(before, name)
    before.families.shared.copy()
    after = Metrics(CollectorRegistry(), directory=tmp_path)
    after.keep_only({"pump"})
    page = page_of(after)
    assert 'anamnesis_vectors_scored_total{detector="pump"} 1.0' in page
    assert "gone" not in page
