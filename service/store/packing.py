"""Packs values that hold a vector as MessagePack; a vector is d little-endian float32 numbers."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def packed(value: object) -> bytes:
    """Return the value as bytes."""
    return msgspec.msgpack.encode(value, enc_hook=_bytes_of)


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """Return a function that reads the bytes of `packed` as a `kind`."""
    return msgspec.msgpack.Decoder(kind, dec_hook=_vector_of).decode


def _bytes_of(vector: Any) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()


def _vector_of(_: type, data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4")
