"""Artifacts with any content and correct hashes: they are refused, or all later calls work."""

import contextlib
import functools
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from prometheus_client import generate_latest
from sklearn.datasets import load_digits

from models import ArtifactError, Config, Model, TrainingError, VectorError, Version, train
from models.columns import Column
from models.context import Context
from models.decisions.evidence import gather
from models.decisions.gate import gate
from models.drift.state import DriftTests, Sample
from models.version import artifact
from service.api.responses import answer
from service.api.status import describe
from service.domain.champion import Champion
from service.domain.detector_config import DetectorConfig
from service.domain.detector_status import DetectorStatus
from service.domain.version_record import describe as record_of
from service.scoring.champions import Champions
from service.store.detector_state import from_state
from service.swap.loader import prepared
from service.telemetry.store_metrics import StoreMetrics
from service.worker.drift_monitor import baseline_of
from tests.faults.artifact_changes import changed, scored_anew
from tests.faults.catalogue import fault

POLICIES: tuple[dict[str, Any], ...] = (
    {"fpr": 0.5}, {"fpr": 1e-6}, {"pot": 0.1}, {"pot": 1e-6}, {"quantile": 0.99}, {"value": 0.0},
    {"labels": {"beta": 1.0}},
)  # fmt: skip


@fault(
    "artifacts of any content, with right hashes",
    "refused, or usable for everything that is done with a version; every number is finite",
    short=100,
    long=2500,
)
async def artifacts_fuzzed(runs: int) -> str:
    """Change something in an artifact, hash it again, and use it as the service does."""
    refused, accepted = 0, Counter[str]()
    broken: list[str] = []
    for run in range(runs):
        rng = random.Random(run)
        name = list(kinds())[run % len(kinds())]
        change, data = changed(kinds()[name], rng)
        with np.errstate(all="ignore"):
            try:
                version = Version.from_bytes(data)
            except ArtifactError:
                refused += 1
                continue
            turn = accepted[name]
            try:
                use(version, kinds()[name], judged=turn % 5 == 0, learns=turn % 15 == 0)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
                broken.append(f"{run} {name}, {change}: {type(error).__name__}: {error}")
            accepted[name] += 1
    assert not broken, "\n".join([*broken[:20], f"({len(broken)} of {runs})"])
    total = accepted.total()
    return f"{total} accepted, {refused} refused; nothing raised later, every answer finite"


@functools.cache
def kinds() -> dict[str, Version]:
    """Return small second versions, which together have every part that a version may have."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) + 8])
    X, labels = X.astype(np.float32), np.repeat([0, 1], 200)
    small = Model(epochs=3, hidden=(8,), latent=2, exemplars=40)
    columns = (Column("a"), Column("b"), Column("c", "flag"))
    configs = {
        "auto": Config(model=small),
        "elbo": Config(model=small, score="elbo"),
        "context": Config(model=small, columns=columns, context=Context(over=5)),
        "impute": Config(model=small, missing="impute", features=("a", "b", "c")),
        "relative": Config(model=small, score="jit+regime"),
        "fitted": Config(model=small, score="fitted", strategy="ewc"),
        "icarl": Config(model=small, strategy="icarl"),
        "mahalanobis": Config(kind="mahalanobis"),
    }
    made = {"pictures": _of_pictures(small)}
    made["earlier pictures"] = _without_indices_of_parts(made["pictures"])
    for name, config in configs.items():
        known = labels if name in {"icarl", "mahalanobis"} else None
        # A version with a context gets derived features: here each number twice.
        given = X if config.context is None else np.hstack([X, X[:, :2]])
        first = train(None, given, config, labels=known)
        second = train(first, given + np.float32(1), config, labels=known)
        made[name] = _as_promoted(second, first)
    return made


def _as_promoted(version: Version, champion: Version) -> Version:
    evidence = gather(version, champion)
    return Version.from_bytes(version.with_lineage(evidence=evidence).to_bytes())


def _of_pictures(model: Model) -> Version:
    """Return a second version of pictures of digits, (8, 8) pixels each."""
    pictures = (load_digits().data[:300] / 16.0).astype(np.float32)
    config = Config(model=replace(model, likelihood="bernoulli"))
    first = train(None, pictures[:150], config)
    return _as_promoted(train(first, pictures[150:], config), first)


def _without_indices_of_parts(version: Version) -> Version:
    """Return a version of pictures as it was stored before the indices of its parts were."""
    tensors, description = artifact.decode(version.to_bytes())
    del tensors["scoring.auto.parts"]
    scored_anew(tensors, description)
    description.pop("format")
    return Version.from_bytes(artifact.encode(tensors, description))


def use(version: Version, champion: Version, *, judged: bool, learns: bool) -> None:
    """Use an accepted version as the service does; raise whatever it raises."""
    rng = np.random.default_rng(0)
    d = version.dimension
    X = np.concatenate(
        [
            rng.normal(size=(20, d)) * 10.0 ** rng.integers(-40, 38, size=(20, 1)),
            rng.normal(size=(20, d)),
            np.full((2, d), [[-3.4e38], [3.4e38]]),
        ]
    ).astype(np.float32)
    for policy in POLICIES:
        threshold = prepared(version, DetectorConfig(threshold=policy)).threshold
        assert_finite(threshold.value, threshold.alpha, *version.judge(X, threshold))
        assert_finite(*version.judge(X[:1], threshold))
        msgspec.json.encode(record_of(version, policy, None))
    assert_finite(*(attribution[1:] for row in version.explain(X, d) for attribution in row))
    assert_finite(version.sample(50, seed=1), version.with_faithful_draws().sample(50, seed=1))
    version.regime_of(X)
    with contextlib.suppress(VectorError):  # raised if the version learned no labels
        version.classify(X)
    _show(version)
    _follow_drift(version, X)
    if judged:
        gate(gather(version, champion))
        gate(gather(champion, version))
    if learns:
        more = rng.normal(size=(64, d)).astype(np.float32)
        with contextlib.suppress(TrainingError, VectorError):  # a worker then parks the experience
            train(version, more, replace(version.config, model=Model(epochs=1)))


def _show(version: Version) -> None:
    """Show the version in the status and in the metrics."""
    served = Champion(
        "pump", "u", 1, 1, 1, version, version.threshold_for({"fpr": 0.01}), trained_at=1.0
    )
    state = {b"uid": b"u", b"config": b"{}", b"champion": b"1", b"generation": b"1"}
    known = from_state("pump", state, None)
    champions = Champions(2)
    champions.note(known)
    champions.install(served)
    watcher = SimpleNamespace(health=SimpleNamespace(no_worker=None))
    status = describe(SimpleNamespace(champions=champions, watcher=watcher), known)  # type: ignore[arg-type]
    assert isinstance(status, DetectorStatus)
    answer(status)
    view = type("View", (), {"redis_up": True, "worker_heartbeat": None, "work": None})()
    page = generate_latest(StoreMetrics(champions, view, buffer_bound=1))  # type: ignore[arg-type]
    assert b"anamnesis_threshold" in page
    assert b"NaN" not in page
    assert b"anamnesis_detector_broken" not in page


def _follow_drift(version: Version, X: np.ndarray) -> None:
    """Let the drift tests follow the version."""
    threshold = version.threshold_for({"fpr": 0.01})
    judged = version.judge(X, threshold)
    drift = DriftTests(baseline_of(version, threshold, "u", 1))
    regimes = np.bincount(np.arange(len(X)) % (1 + len(version.regimes)))
    drift.update(
        Sample(judged.scores, judged.p_values, int(judged.is_anomaly.sum()), len(X),
               version.reference.bin_counts(X), regimes)
    )  # fmt: skip
    msgspec.json.encode(drift.verdict())


def assert_finite(*answers: Any) -> None:
    """Fail unless every number of every answer is finite."""
    for numbers in answers:
        assert np.isfinite(numbers).all(), "an answer is not finite"
