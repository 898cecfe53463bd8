"""Artifacts with any content and correct hashes: they are refused, or all later calls work."""

import contextlib
import functools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from prometheus_client import generate_latest

from models import ArtifactError, Config, Model, TrainingError, VectorError, Version, train
from models.columns import Column
from models.context import Context
from models.decisions.evidence import gather
from models.decisions.gate import gate
from models.drift.state import DriftTests, Sample
from models.version import artifact
from models.version.description import parse_description
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
from tests.faults.catalogue import fault

JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 3.5, -0.5, 2**31, 2**53, 2**64 - 1, -(10**15), 1e300, -1e300, 1e-320,
    "", "x", "\ud800", "9" * 400, [], [0], [None], [[]], {}, {"x": 1}, {"number": 1}, [{}],
    {"candidate": 2.0, "champion": "x"},
)  # fmt: skip
VALUES = (0.0, -1.0, 1.0, 1e-300, 1e300, 3.4e38, -3.4e38, 1e30, 1e10, float("nan"), float("inf"))
DTYPES = ("float16", "float32", "float64", "int64", "int32", "uint8", "bool")
POLICIES: tuple[dict[str, Any], ...] = (
    {"fpr": 0.5}, {"fpr": 1e-6}, {"pot": 0.1}, {"pot": 1e-6}, {"quantile": 0.99}, {"value": 0.0},
    {"labels": {"beta": 1.0}},
)  # fmt: skip

Parts = tuple[artifact.Tensors, dict[str, Any]]


@fault(
    "artifacts of any content, with right hashes",
    "refused, or usable for everything that is done with a version; every number is finite",
    short=100,
    long=2500,
)
async def artifacts_fuzzed(runs: int) -> str:
    """Change something in an artifact, hash it again, and use it as the service does."""
    outcomes: Counter[str] = Counter()
    broken: list[str] = []
    for run in range(runs):
        rng = random.Random(run)
        name = list(kinds())[run % len(kinds())]
        mutation, data = mutated(kinds()[name], rng)
        with np.errstate(all="ignore"):
            try:
                version = Version.from_bytes(data)
            except ArtifactError:
                outcomes["refused"] += 1
                continue
            try:
                use(version, kinds()[name], judged=run % 5 == 0, learns=run % 40 == 0)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
                broken.append(f"{run} {name}, {mutation}: {type(error).__name__}: {error}")
            outcomes["accepted"] += 1
    assert not broken, "\n".join([*broken[:20], f"({len(broken)} of {runs})"])
    counted = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
    return f"{counted}; nothing raised later, every answer finite"


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
    made = {}
    for name, config in configs.items():
        known = labels if name in {"icarl", "mahalanobis"} else None
        # A version with a context gets derived features: here each number twice.
        given = X if config.context is None else np.hstack([X, X[:, :2]])
        first = train(None, given, config, labels=known)
        second = train(first, given + np.float32(1), config, labels=known)
        evidence = gather(second, first)
        made[name] = Version.from_bytes(second.with_lineage(evidence=evidence).to_bytes())
    return made


def mutated(version: Version, rng: random.Random) -> tuple[str, bytes]:
    """Return a description of the change, and the changed artifact with correct hashes."""
    intact, description = artifact.decode(version.to_bytes())
    tensors = {name: tensor.copy() for name, tensor in intact.items()}
    changes = [
        _with_other_description,
        _with_other_description,  # twice as often, because it has most entries
        _with_other_value,
        _with_other_values,
        _with_other_shape,
        _with_other_dtype,
        _without_tensor,
        _with_foreign_tensor,
    ]
    mutations = [
        rng.choice(changes)(tensors, description, rng) for _ in range(rng.choice((1, 1, 1, 2)))
    ]
    if rng.random() < 0.7:
        _scored_anew(tensors, description)
    description.pop("format")
    return "; ".join(mutations), _encoded_or_none(tensors, description)


def _encoded_or_none(tensors: artifact.Tensors, description: dict[str, Any]) -> bytes:
    try:
        return artifact.encode(tensors, description)
    except (ValueError, TypeError):  # nobody can send values that JSON or safetensors cannot hold
        return b""


def _scored_anew(tensors: artifact.Tensors, description: dict[str, Any]) -> None:
    """Compute the golden scores again, so that they agree with the changed tensors."""
    try:
        with np.errstate(all="ignore"):
            version = Version._build(tensors, parse_description(description))
            tensors["golden.scores"] = version.score(tensors["golden.vectors"])
    except Exception:  # noqa: BLE001 - then they stay as they are
        pass


def _paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _paths_in(member, (*path, name))
    elif isinstance(value, list):
        for i, element in enumerate(value[:3]):
            yield from _paths_in(element, (*path, i))


def _with_other_description(
    tensors: artifact.Tensors, description: dict[str, Any], rng: random.Random
) -> str:
    """Replace, drop or add an entry of the artifact's description."""
    del tensors
    path = rng.choice([path for path in _paths_in(description) if path and path[0] != "format"])
    owner = functools.reduce(lambda at, key: at[key], path[:-1], description)
    change, junk = rng.choice(("set", "set", "set", "drop", "add")), rng.choice(JUNK)
    if change == "drop":
        del owner[path[-1]]
    elif change == "add" and isinstance(owner, dict):
        owner["also"] = junk
    else:
        owner[path[-1]] = junk
    return f"{change} {path} {json.dumps(junk)[:40]}"


def _some_tensor(tensors: artifact.Tensors, rng: random.Random) -> str:
    return rng.choice([name for name, tensor in tensors.items() if tensor.size] or list(tensors))


def _with_other_value(
    tensors: artifact.Tensors, description: dict[str, Any], rng: random.Random
) -> str:
    """Set one number of a tensor."""
    del description
    name, value = _some_tensor(tensors, rng), rng.choice(VALUES)
    if tensors[name].size:
        with np.errstate(all="ignore"):
            at = rng.randrange(tensors[name].size)
            tensors[name].reshape(-1)[at] = np.float64(value).astype(tensors[name].dtype)
    return f"{name} one value {value}"


def _with_other_values(
    tensors: artifact.Tensors, description: dict[str, Any], rng: random.Random
) -> str:
    """Change all numbers of a tensor."""
    del description
    name = _some_tensor(tensors, rng)
    factor = rng.choice((0.0, -1.0, 1e-30, 1e3, 1e5, 1e30, 1e38))
    change: Callable[[Any], Any] = rng.choice(
        (
            lambda values: values * factor,
            lambda values: values[::-1],
            lambda values: values + factor,
            np.sort,
        )
    )
    with np.errstate(all="ignore"):
        tensors[name] = np.ascontiguousarray(change(tensors[name]).astype(tensors[name].dtype))
    return f"{name} changed by {factor}"


def _with_other_shape(
    tensors: artifact.Tensors, description: dict[str, Any], rng: random.Random
) -> str:
    """Give a tensor another shape."""
    del description
    name = _some_tensor(tensors, rng)
    tensor = tensors[name]
    change = rng.choice(("cut", "grow", "flat", "deep", "scalar", "none", "turn"))
    tensors[name] = np.ascontiguousarray(
        {
            "cut": lambda: tensor[: max(0, len(tensor) - 1)],
            "grow": lambda: np.concatenate([tensor, tensor[:1]]),
            "flat": lambda: tensor.reshape(-1),
            "deep": lambda: tensor[None],
            "scalar": lambda: tensor.reshape(-1)[:1].reshape(()) if tensor.size else tensor,
            "none": lambda: tensor[:0],
            "turn": lambda: tensor.T,
        }[change]()
        if tensor.ndim
        else tensor
    )
    return f"{name} {change}"


def _with_other_dtype(
    tensors: artifact.Tensors, description: dict[str, Any], rng: random.Random
) -> str:
    """Give a tensor another dtype."""
    del description
    name, dtype = _some_tensor(tensors, rng), rng.choice(DTYPES)
    with np.errstate(all="ignore"):
        tensors[name] = tensors[name].astype(dtype)
    return f"{name} {dtype}"


def _without_tensor(
    tensors: artifact.Tensors, description: dict[str, Any], rng: random.Random
) -> str:
    """Remove a tensor, sometimes with its whole group."""
    del description
    name = rng.choice(list(tensors))
    group = name.rpartition(".")[0] if rng.random() < 0.5 else name
    for tensor in [
        tensor for tensor in tensors if tensor == name or (group and tensor.startswith(group))
    ]:
        del tensors[tensor]
    return f"{group} gone"


def _with_foreign_tensor(
    tensors: artifact.Tensors, description: dict[str, Any], rng: random.Random
) -> str:
    """Add a tensor that does not belong to such a version."""
    del description
    name = rng.choice(
        ("memory.solver.labels", "scoring.codes", "scoring.regime.sizes", "memory.x", "x",
         "memory.exemplars.labels", "memory.regimes.labels", "memory.fisher.noise")
    )  # fmt: skip
    tensors[name] = np.ones(rng.choice(((), (0,), (2,), (2, 2))), rng.choice(DTYPES[:6]))
    return f"{name} added"


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
