"""What one tensor of an artifact must be: its dtype, its shape and the range of its values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.parts.network import Shape

LARGEST_WEIGHT = 1e6  # of a network, a code or a scaled value: trained ones stay below 1e3
SLIGHT = 1e-12  # of a variance or a deviation of a view: every fit adds far more
MOST_MODES = 4_096  # of a mixture: a training fits 40, and labels may name more


@dataclass(frozen=True, slots=True)
class Spec:
    """What a tensor must be: its dtype, its shape and the range of its values, ends included.

    A length of -1 may be any.
    """

    dtype: Literal["float32", "float64", "int64"]
    shape: tuple[int, ...]
    low: float = -LARGEST_WEIGHT
    high: float = LARGEST_WEIGHT

    def misses(self, tensor: NDArray[Any]) -> str | None:
        """Return in what `tensor` differs, None where in nothing."""
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


Specs = dict[str, Spec]
Lengths = Mapping[str, int]
"""How many rows each tensor of an artifact has, 0 where there is none of that name."""


def mixture(shape: Shape, rows: Lengths, factors: int, widest: float) -> Specs:
    """Return the specs of `latents`: `factors` matrices (k, k), with values up to `widest`."""
    modes, k = rows["latents.weights"], shape.latent
    return {
        "latents.weights": Spec("float64", (min(max(modes, 1), MOST_MODES),), 0.0, 1.0),
        "latents.means": Spec("float32", (modes, k)),
        "latents.factors": Spec("float32", (factors, k, k), -widest, widest),
    }


def labels(n: int) -> Spec:
    """Return that of the labels of n classes or vectors."""
    return Spec("int64", (n,), -(2**63), 2**63)
