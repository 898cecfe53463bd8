"""The arrays of a version as an artifact holds them: their names and shapes."""

from typing import Any

from numpy.typing import NDArray

from models import artifact
from models.network import Shape
from models.reference import BINS

GOLDEN = 8  # vectors whose scores travel with an artifact
MIN_CALIBRATION = 8  # fewer scores are no calibration at all
PARTS = (
    "scaler.location",
    "scaler.scale",
    "latents.weights",
    "latents.means",
    "latents.factors",
    "calibration.scores",
    "reference.edges",
    "reference.expected",
)


def under(prefix: str, tensors: artifact.Tensors) -> dict[str, NDArray[Any]]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def part(version: object, dotted: str) -> NDArray[Any]:
    """Return the array `dotted` names: a part of the version, and a field of it."""
    owner, name = dotted.split(".")
    tensor: NDArray[Any] = getattr(getattr(version, owner), name)
    return tensor


def expected_shapes(shape: Shape, tensors: artifact.Tensors) -> dict[str, tuple[int, ...]]:
    """Return the shape that each tensor of an artifact with such a network must have."""
    d, k = shape.dimension, shape.latent
    modes, n = len(tensors["latents.weights"]), len(tensors["calibration.scores"])
    return {
        **{f"network.{name}": expected for name, expected in shape.tensors().items()},
        "scaler.location": (d,),
        "scaler.scale": (d,),
        "latents.means": (modes, k),
        "latents.factors": (1 if shape.likelihood == "identity" else modes, k, k),
        "calibration.scores": (max(n, MIN_CALIBRATION),),
        "reference.edges": (d, BINS - 1),
        "reference.expected": (d, BINS),
        "kept": (len(tensors["kept"]), d),
        "golden.vectors": (GOLDEN, d),
    }
