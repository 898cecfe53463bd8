"""The arrays of a version as an artifact holds them: their names."""

from typing import Any

from numpy.typing import NDArray

from models import artifact

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
