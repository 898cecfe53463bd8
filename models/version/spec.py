"""The specification of one tensor of an artifact: its dtype, shape and range of values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.parts.network import Shape

LARGEST_WEIGHT = 1e6  # the bound for weights, codes and scaled values; trained ones stay below 1e3
SLIGHT = 1e-12  # the least variance or deviation in a view; every fit adds far more
MOST_MODES = 4_096  # the most modes of a mixture; a training fits 40, and labels may name more


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The dtype, the shape and the closed range of values that a tensor must have.

    A length of -1 allows any length.
    """

    dtype: Literal["float32", "float64", "int64"]
    shape: tuple[int, ...]
    low: float = -LARGEST_WEIGHT
    high: float = LARGEST_WEIGHT

    def violation(self, tensor: NDArray[Any]) -> str | None:
        """Return how `tensor` violates the spec; None if it does not."""
        if tensor.dtype != np.dtype(self.dtype):
            return f"is {tensor.dtype}, not {self.dtype}"
        fits = len(tensor.shape) == len(self.shape) and all(
            expected in (-1, actual)
            for actual, expected in zip(tensor.shape, self.shape, strict=True)
        )
        if not fits:
            return f"is {tensor.shape}, not {self.shape}"
        if not np.isfinite(tensor).all():
            return "is not finite"
        if tensor.size and not (tensor.min() >= self.low and tensor.max() <= self.high):
            return f"has values beyond [{self.low:g}, {self.high:g}]"
        return None


Specs = dict[str, TensorSpec]
Lengths = Mapping[str, int]
"""The number of rows of each tensor of an artifact, by name; 0 if there is no such tensor."""


def mixture(shape: Shape, rows: Lengths, factors: int, widest: float) -> Specs:
    """Return the specs of `latents`, with `factors` matrices (k, k) and values up to `widest`."""
    modes, k = rows["latents.weights"], shape.latent
    return {
        "latents.weights": TensorSpec("float64", (min(max(modes, 1), MOST_MODES),), 0.0, 1.0),
        "latents.means": TensorSpec("float32", (modes, k)),
        "latents.factors": TensorSpec("float32", (factors, k, k), -widest, widest),
    }


def labels(n: int) -> TensorSpec:
    """Return the spec of the labels of n classes or vectors."""
    return TensorSpec("int64", (n,), -(2**63), 2**63)
