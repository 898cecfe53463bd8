"""The specification of an artifact's tensors: names, dtypes, shapes and bounds.

Each part of a version has one function here that returns the specs of its tensors.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.categories import MOST_SHARED
from models.errors import ArtifactError
from models.parts.calibration import CAPACITY, LARGEST
from models.parts.feature_tree import FEATURES
from models.parts.piecewise_map import MOST_KNOTS
from models.parts.reference import BINS
from models.scores.auto import PICTURES
from models.scores.by_name import BY_REGIME
from models.version.description import Description
from models.version.imputation import DRAWN, SHARES
from models.version.kind import kind_of
from models.version.spec import LARGEST_WEIGHT, SLIGHT, Lengths, Specs, TensorSpec, labels

GOLDEN = 8  # the number of golden vectors, whose scores are stored in an artifact
MIN_CALIBRATION = 8  # the fewest calibration scores
# the least deviation of a mode; every training adds a variance of at least 1e-3
LEAST_DEVIATION = 0.01
LARGEST_NOISE = 60.0  # the largest log variance whose deviation is still a float32 number
# bounds of a feature's scale: below float32's smallest step, above twice its largest value
_LEAST_SCALE, _LARGEST_SCALE = 1e-46, 1e39


def _network(description: Description, rows: Lengths) -> Specs:
    del rows
    specs = {
        f"network.{name}": TensorSpec("float32", shape)
        for name, shape in description.shape.tensors().items()
    }
    if "network.noise" in specs:
        specs["network.noise"] = TensorSpec(
            "float32", (1, description.shape.dimension), -LARGEST_WEIGHT, LARGEST_NOISE
        )
    return specs


def _scaler(description: Description, rows: Lengths) -> Specs:
    d = description.shape.dimension
    specs = {
        "scaler.location": TensorSpec("float64", (d,), -_LARGEST_SCALE, _LARGEST_SCALE),
        "scaler.scale": TensorSpec("float64", (d,), _LEAST_SCALE, _LARGEST_SCALE),
    }
    if knots := min(rows["scaler.at"], MOST_KNOTS):
        for name in ("scaler.at", "scaler.to"):
            specs[name] = TensorSpec("float64", (knots, d), -_LARGEST_SCALE, _LARGEST_SCALE)
    if description.categories:
        c, slots = len(description.categories), sum(description.categories)
        specs["scaler.codes"] = TensorSpec("float32", (slots,), 0.0, 2.0**24)
        specs["scaler.categories"] = TensorSpec("int64", (c,), 0, description.width - 1)
        if shared := min(rows["scaler.shared"], MOST_SHARED):
            specs["scaler.shared"] = TensorSpec("int64", (shared, 2), 0, 2**24)
    return specs


def _calibration(description: Description, rows: Lengths) -> Specs:
    del description
    n = min(max(rows["calibration.scores"], MIN_CALIBRATION), 2 * CAPACITY)
    return {"calibration.scores": TensorSpec("float64", (n,), -LARGEST, LARGEST)}


def _reference(description: Description, rows: Lengths) -> Specs:
    d = description.width
    specs = {
        "reference.edges": TensorSpec("float32", (d, BINS - 1), -LARGEST, LARGEST),
        "reference.expected": TensorSpec("float64", (d, BINS), 0.0, 1.0 + 1e-6),
    }
    if rows["reference.wander"]:  # earlier formats do not have it
        specs["reference.wander"] = TensorSpec("float64", (d,), 0.0, 1.0)
        specs["reference.score_wander"] = TensorSpec("float64", (1,), 0.0, 1.0)
    return specs


def _kept(description: Description, rows: Lengths) -> Specs:
    """Return the specs of kept real vectors and of their labels."""
    specs = {"kept": TensorSpec("float32", (-1, description.shape.dimension))}
    if rows["memory.exemplars.labels"]:
        specs["memory.exemplars.labels"] = labels(rows["kept"])
    return specs


def _golden(description: Description, rows: Lengths) -> Specs:
    del rows
    return {
        "golden.vectors": TensorSpec("float32", (GOLDEN, description.width), -LARGEST, LARGEST),
        "golden.scores": TensorSpec("float64", (GOLDEN,), -LARGEST, LARGEST),
    }


def _regimes(description: Description, rows: Lengths) -> Specs:
    """Return the specs of `regimes.Boundaries`."""
    del rows
    specs: Specs = {}
    R, shape = description.regimes, description.shape
    if description.lineage.regimes:
        features = shape.hidden[-1] if shape.hidden else shape.dimension
        specs["memory.regimes.weight"] = TensorSpec("float32", (features, R), -LARGEST, LARGEST)
        specs["memory.regimes.bias"] = TensorSpec("float32", (R,), -LARGEST, LARGEST)
        specs["memory.regimes.typical"] = TensorSpec("float32", (R, shape.latent))
    return specs


def _tables(description: Description, rows: Lengths) -> Specs:
    """Return the specs of a score that is relative to the regime."""
    if not description.config.score.endswith(BY_REGIME):
        return {}
    n = min(max(rows["scoring.regime.scores"], MIN_CALIBRATION), 2 * CAPACITY)
    return {
        "scoring.regime.scores": TensorSpec("float64", (n,), -LARGEST, LARGEST),
        "scoring.regime.sizes": TensorSpec("int64", (description.regimes,), 0, 2 * CAPACITY),
    }


def _gaps(description: Description, rows: Lengths) -> Specs:
    """Return the specs of `imputation.GapScale`, which earlier versions do not have."""
    counts = min(rows["gaps.counts"], 1 + len(SHARES))
    if not counts:
        return {}
    return {
        "gaps.counts": TensorSpec("int64", (counts,), 0, description.width - 1),
        "gaps.scores": TensorSpec("float32", (counts, DRAWN), -LARGEST, LARGEST),
    }


def _of_kind(description: Description, rows: Lengths) -> Specs:
    return kind_of(description.config.kind).tensors(
        description.shape, description.config.score, rows
    )


# The specs of all parts of a version that have tensors. A new part needs one more function here.
SPECS: tuple[Callable[[Description, Lengths], Specs], ...] = (
    _network,
    _scaler,
    _calibration,
    _reference,
    _kept,
    _golden,
    _regimes,
    _of_kind,
    _tables,
    _gaps,
)


class _Rows(dict[str, int]):
    def __missing__(self, name: str) -> int:
        return 0


def check_tensors(description: Description, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise ArtifactError unless `tensors` match the specs of such a version."""
    rows = _Rows({name: len(tensor) if tensor.ndim else 0 for name, tensor in tensors.items()})
    specs: Specs = {}
    for specs_of_part in SPECS:
        specs |= specs_of_part(description, rows)
    if missing := sorted(specs.keys() - tensors.keys()):
        raise ArtifactError(f"artifact: {missing[0]} is missing")
    if tensors.keys() - specs.keys():
        raise ArtifactError("artifact: it has tensors that do not belong to such a version")
    for name, spec in specs.items():
        if why := spec.violation(tensors[name]):
            raise ArtifactError(f"artifact: {name} {why}")
    for fault, is_absent in _faults(tensors):
        if not is_absent:
            raise ArtifactError(f"artifact: {fault}")


def _faults(tensors: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, bool]]:
    """Yield each possible fault of the values together, and whether it is absent."""
    if "scaler.categories" in tensors:
        places = tensors["scaler.categories"]
        yield "scaler.categories do not rise", bool((np.diff(places) > 0).all())
    yield "calibration.scores do not rise", _rises(tensors["calibration.scores"])
    yield "reference.edges do not rise", _rises(tensors["reference.edges"])
    shares = tensors["reference.expected"].sum(axis=1)
    yield "reference.expected does not sum to 1", bool((np.abs(shares - 1.0) < 1e-6).all())
    yield from _mixture_faults("latents", tensors, LEAST_DEVIATION)
    if "gaps.counts" in tensors:
        counts = tensors["gaps.counts"]
        from_zero = bool(counts[0] == 0 and len(counts) > 1 and (np.diff(counts) > 0).all())
        yield "gaps.counts do not rise from 0", from_zero
        yield "gaps.scores do not rise", _rises(tensors["gaps.scores"])
    if "scoring.auto.tables" in tensors:
        yield from _view_faults(tensors)
    if "scoring.regime.sizes" in tensors:
        sizes, scores = tensors["scoring.regime.sizes"], tensors["scoring.regime.scores"]
        sums_up = int(sizes.sum()) == len(scores)
        yield "scoring.regime.sizes do not sum to the scores", sums_up
        tables = np.split(scores, np.cumsum(sizes)[:-1]) if sums_up else []
        yield "scoring.regime.scores do not rise", all(_rises(table) for table in tables)


def _view_faults(tensors: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, bool]]:
    tables = tensors["scoring.auto.tables"]
    enough = tables.shape[1] >= MIN_CALIBRATION
    yield "scoring.auto.tables do not rise, or are too few", enough and _rises(tables)
    if "scoring.auto.parts" in tensors:
        indices = tuple(tensors["scoring.auto.parts"].tolist())
        yield "scoring.auto.parts are not those of pictures", indices == PICTURES
    for name in ("values", "scores"):
        knots = tensors[f"scoring.views.marginals.{name}"]
        yield f"scoring.views.marginals.{name} do not rise", _rises(knots)
    for tree in ("scoring.views.tree", "scoring.views.pairs"):
        if f"{tree}.parents" in tensors:
            yield from _tree_faults(tree, tensors)
    for view in ("scoring.views.drawn_in", "scoring.views.normal"):
        yield from _mixture_faults(view, tensors, SLIGHT)


def _tree_faults(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, bool]]:
    steps, parents = np.diff(tensors[f"{prefix}.bins"], prepend=-1), tensors[f"{prefix}.parents"]
    yield f"{prefix}.bins leave out a bin", bool(np.isin(steps, (0, 1)).all())
    roots = parents
    for _ in range(FEATURES.bit_length()):
        roots = roots[roots]
    yield f"{prefix}.parents form a circle", bool((parents[roots] == roots).all())


def _mixture_faults(
    prefix: str, tensors: Mapping[str, NDArray[Any]], least: float
) -> Iterator[tuple[str, bool]]:
    """Yield the possible faults of the mixture under `prefix`, with deviations from `least` on."""
    weights, factors = tensors[f"{prefix}.weights"], tensors[f"{prefix}.factors"]
    yield f"{prefix}.weights do not sum to 1", bool(abs(weights.sum() - 1.0) < 1e-6)
    diagonal = np.diagonal(factors, axis1=1, axis2=2)
    triangular = bool(diagonal.min() >= least and not np.triu(factors, 1).any())
    yield f"{prefix}.factors are not Cholesky factors", triangular


def _rises(values: NDArray[Any]) -> bool:
    return bool((np.diff(values.astype(np.float64), axis=-1) >= 0).all())
