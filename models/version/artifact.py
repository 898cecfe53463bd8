"""The artifact, a version as bytes: safetensors with one metadata entry and a checksum.

safetensors itself accepts flipped bits and NaN, so this module checks for them. The checksum covers
everything. Nothing in an artifact is code.
"""

import hashlib
import json
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from models.errors import ArtifactError

# Format 2 added the score `auto`, 3 categories and the features' `wander`, and 4 the scale of rows
# with missing values.
FORMAT = 4
READABLE = (1, 2, 3, 4)  # the formats that this release reads: its own and all earlier ones
MAX_BYTES = 256 * 2**20
_MOST_TENSORS = 10_000
_MOST_ENTRIES = 1_000_000  # objects and lists of the description, which lists 65,536 columns

Tensors = dict[str, NDArray[Any]]


def digest(data: bytes) -> str:
    """Return the sha256 of an artifact, lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def encode(tensors: Tensors, description: dict[str, Any]) -> bytes:
    """Return named arrays and a JSON-able description as bytes; equal input gives equal bytes."""
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    description = {"format": FORMAT, **description}
    description["checksum"] = _checksum(tensors, description)
    # There is one entry because safetensors writes several entries in no fixed order.
    return safetensors.numpy.save(tensors, metadata={"anamnesis": _canonical(description)})


def decode(
    data: bytes, max_bytes: int = MAX_BYTES, *, verified: bool = False
) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays and the description that were given to `encode`.

    Raises ArtifactError for bytes that are larger than `max_bytes`, of an unknown format,
    truncated, altered or not finite. If the bytes were `verified` before, the last two checks are
    skipped.
    """
    if len(data) > max_bytes:
        raise ArtifactError(f"artifact: {len(data)} bytes, more than {max_bytes}")
    head = data[8 : 8 + int.from_bytes(data[:8], "little")]
    _check_counts(head)
    try:
        tensors = safetensors.numpy.load(data)
        header = json.loads(head)
        text = header["__metadata__"]["anamnesis"]
        description = json.loads(text)
        # Several texts may stand for the same number, but only the one that was written is intact.
        written = verified or text == _canonical(description)
        version, checksum = description["format"], description.pop("checksum")
    # The bytes may be anything, so the parsers may raise anything.
    except (SafetensorError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError):
        raise ArtifactError("artifact: not a version, or cut short") from None
    if version not in READABLE:
        raise ArtifactError(f"artifact: format {version}; this release reads {READABLE}")
    if verified:
        return tensors, description
    if not written or checksum != _checksum(tensors, description):
        raise ArtifactError("artifact: its checksum does not match; it was altered")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ArtifactError(f"artifact: {name} is not finite")
    return tensors, description


def _check_counts(head: bytes) -> None:
    """Raise ArtifactError before parsers make an object for each of millions of entries."""
    tensors, entries = head.count(b'"data_offsets"'), head.count(b"{") + head.count(b"[")
    if tensors > _MOST_TENSORS or entries > _MOST_ENTRIES:
        raise ArtifactError("artifact: it has more tensors or entries than any version")


def _canonical(description: dict[str, Any]) -> str:
    return json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(tensors: Tensors, description: dict[str, Any]) -> str:
    total = hashlib.sha256(_canonical(description).encode())
    for name in sorted(tensors):
        total.update(f"{name}:{tensors[name].dtype}:{tensors[name].shape}".encode())
        total.update(tensors[name].tobytes())
    return total.hexdigest()


# The arrays of a version that every artifact has, by part and field.
PARTS = (
    "scaler.location",
    "scaler.scale",
    "latents.weights",
    "latents.means",
    "latents.factors",
    "calibration.scores",
    "reference.edges",
    "reference.expected",
    "reference.wander",
    "reference.score_wander",
)


def tensors_under(prefix: str, tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
