"""The messages between worker and trainer: length-prefixed MessagePack over two pipes.

A frame is a 4-byte big-endian length and that many bytes. The trainer first sends `Ready`, or
`Failed` if it cannot start. Then the worker sends one `Job` after another. For each job the trainer
sends any number of `Progress`, and at the end `Trained` or `Failed`.
"""

import asyncio
import struct
from typing import IO, Any

import msgspec

_LENGTH = struct.Struct(">I")


class Job(msgspec.Struct, frozen=True):
    """One training: the parent's artifact and n rows of d float32 features, row-major.

    For the gate it also has the `labelled_rows`, with one byte for each of them in `anomalous`, and
    the artifact of the anchor if the anchor is not the parent. `vouched` has one byte for each row
    to learn: 1 if a person labelled the row normal.
    """

    previous: bytes | None
    vectors: bytearray  # a bytearray is writable, so torch needs no copy
    n: int
    d: int
    config: dict[str, Any]
    weights: str | dict[str, float] | None = None
    artifact_max_bytes: int = 256 * 2**20
    labelled_rows: bytes = b""
    anomalous: bytes = b""
    anchor: bytes | None = None
    vouched: bytes = b""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The trainer has loaded its libraries and takes jobs."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far the training is: the fraction in [0, 1] and the latest loss (nats).

    It also has the losses on old and on new vectors. One is None if there are no such vectors.
    """

    fraction: float
    loss: float
    loss_old: float | None = None
    loss_new: float | None = None


class Trained(msgspec.Struct, frozen=True, tag=True):
    """The new version's artifact."""

    artifact: bytes


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The training failed. `reason` says why, in words for a person.

    `broken` means that the data are not the cause, so the process must not be used again. For
    example, a library that was interrupted may fail in every later training.
    """

    reason: str
    broken: bool = False


Reply = Ready | Progress | Trained | Failed

job_decoder = msgspec.msgpack.Decoder(Job)
reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Job | Reply) -> bytes:
    """Return the frame that carries `message`."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def read(stream: IO[bytes]) -> bytes | None:
    """Return the body of the next frame from a blocking stream, None if the stream has ended."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


async def receive(stream: asyncio.StreamReader) -> Reply:
    """Return the next reply. Raises IncompleteReadError if the trainer has ended."""
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    return reply_decoder.decode(await stream.readexactly(length))
