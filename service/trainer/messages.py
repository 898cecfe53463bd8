"""The messages between worker and trainer: length-prefixed MessagePack over two pipes.

A frame is a 4-byte big-endian length and that many bytes. The worker sends `Job`s; the trainer
answers with `Ready` once, or with `Failed` where it cannot start; then for every job `Progress`,
any number of times, and one of `Trained` and `Failed`.
"""

import asyncio
import struct
from typing import IO, Any

import msgspec

_LENGTH = struct.Struct(">I")


class Job(msgspec.Struct, frozen=True):
    """One training: the parent's artifact and n rows of d float32 features, row-major.

    For the gate it also holds the `judged` rows, which people labelled, with one byte a row in
    `anomalous`; and the artifact of the anchor, where that is not the parent. `vouched`, one byte a
    row, marks the rows that a person labelled normal.
    """

    previous: bytes | None
    vectors: bytearray  # writable once decoded, so that torch takes it without another copy
    n: int
    d: int
    config: dict[str, Any]
    weights: str | dict[str, float] | None = None
    artifact_max_bytes: int = 256 * 2**20
    judged: bytes = b""
    anomalous: bytes = b""
    anchor: bytes | None = None
    vouched: bytes = b""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The libraries are loaded; jobs are welcome."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far the training is: fraction in [0, 1] and the latest loss (nats).

    Also the loss on old and on new vectors, None where there are none of them.
    """

    fraction: float
    loss: float
    loss_old: float | None = None
    loss_new: float | None = None


class Trained(msgspec.Struct, frozen=True, tag=True):
    """The new version's artifact."""

    artifact: bytes


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The training failed, and why, in words for a person.

    `broken`: the cause is not the data, so the process must not be used again. A library that was
    interrupted half-way may fail in every later training, with another reason.
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
    """Return the next frame's body from a blocking stream, None once it has ended."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


async def receive(stream: asyncio.StreamReader) -> Reply:
    """Return the next reply. Raises IncompleteReadError once the trainer is gone."""
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    return reply_decoder.decode(await stream.readexactly(length))
