"""Changes of an artifact's content; its hashes are made anew, so that they are right."""

import functools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from models import Version
from models.version import artifact
from models.version.description import parse_description

JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 3.5, -0.5, 2**31, 2**53, 2**64 - 1, -(10**15), 1e300, -1e300, 1e-320,
    "", "x", "\ud800", "9" * 400, [], [0], [None], [[]], {}, {"x": 1}, {"number": 1}, [{}],
    {"candidate": 2.0, "champion": "x"},
)  # fmt: skip
VALUES = (0.0, -1.0, 1.0, 1e-300, 1e300, 3.4e38, -3.4e38, 1e30, 1e10, float("nan"), float("inf"))
DTYPES = ("float16", "float32", "float64", "int64", "int32", "uint8", "bool")


def changed(version: Version, rng: random.Random) -> tuple[str, bytes]:
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
    made = [rng.choice(changes)(tensors, description, rng) for _ in range(rng.choice((1, 1, 1, 2)))]
    if rng.random() < 0.7:
        scored_anew(tensors, description)
    description.pop("format")
    return "; ".join(made), _encoded_or_none(tensors, description)


def _encoded_or_none(tensors: artifact.Tensors, description: dict[str, Any]) -> bytes:
    try:
        return artifact.encode(tensors, description)
    except (ValueError, TypeError):  # nobody can send values that JSON or safetensors cannot hold
        return b""


def scored_anew(tensors: artifact.Tensors, description: dict[str, Any]) -> None:
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
