"""Reads from the messages of an Arrow IPC stream how many rows and bytes they declare.

A stream may be compressed, and a few kilobytes can declare gigabytes. pyarrow has no limit on what
it decompresses, so the declared sizes are checked before it reads the stream. The layout of a
message is that of `Message.fbs` in Arrow's format, written as a flatbuffer.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

_DICTIONARY, _ROWS = 2, 3  # the types of messages that have a body
_HEADER_TYPE, _HEADER = 1, 2  # fields of a message
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3  # fields of a batch
_BATCH = 1  # field of a dictionary
_PREFIX = struct.Struct("<q")  # before a buffer: its size, or -1 if it is not compressed
_PLACE = struct.Struct("<qq")  # where a buffer begins in the body, and how long it is there


class Declared(NamedTuple):
    """What a message declares: the rows of its batch, and its bytes after decompression.

    The batch of a `dictionary` has the words that later batches refer to.
    """

    rows: int = 0
    size: int = 0
    dictionary: bool = False


def declared(metadata: memoryview, body: memoryview) -> Declared:
    """Return what a message declares. Raises ValueError or struct.error for a malformed one."""
    message = _Table(metadata, _offset(metadata, 0))
    kind = message.byte(_HEADER_TYPE)
    if kind not in (_DICTIONARY, _ROWS):
        return Declared()
    batch = message.table(_HEADER)
    if batch is not None and kind == _DICTIONARY:
        batch = batch.table(_BATCH)
    if batch is None:
        raise ValueError("a message without its batch")
    compressed = batch.table(_COMPRESSION) is not None
    size = 0
    for start, length in batch.places(_BUFFERS):
        if not 0 <= start <= start + length <= len(body):
            raise ValueError("a buffer outside of its message")
        whole = -1
        if compressed and length >= _PREFIX.size:
            (whole,) = _PREFIX.unpack_from(body, start)
        size += length if whole < 0 else whole
    return Declared(batch.long(_LENGTH), size, kind == _DICTIONARY)


class _Table:
    """A table of a flatbuffer, which begins at `start`."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data = data
        self._start = start
        (back,) = struct.unpack_from("<i", data, start)
        self._fields = start - back
        if not 0 <= self._fields < len(data):
            raise ValueError("a table outside of its message")

    def _field(self, number: int) -> int | None:
        """Return the place of a field, None if it has its default."""
        place = 4 + 2 * number
        (size,) = struct.unpack_from("<H", self._data, self._fields)
        if place >= size:
            return None
        (offset,) = struct.unpack_from("<H", self._data, self._fields + place)
        return self._start + offset if offset else None

    def byte(self, number: int) -> int:
        """Return a field of one byte."""
        at = self._field(number)
        return 0 if at is None else int(self._data[at])

    def long(self, number: int) -> int:
        """Return a field of eight bytes."""
        at = self._field(number)
        return 0 if at is None else int(_PREFIX.unpack_from(self._data, at)[0])

    def table(self, number: int) -> "_Table | None":
        """Return a field that is a table, None if it is absent."""
        at = self._field(number)
        return None if at is None else _Table(self._data, at + _offset(self._data, at))

    def places(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield the pairs of a field that is a vector of buffers."""
        at = self._field(number)
        if at is None:
            return
        start = at + _offset(self._data, at)
        end = start + 4 + _PLACE.size * _offset(self._data, start)
        if end > len(self._data):
            raise ValueError("a vector outside of its message")
        yield from _PLACE.iter_unpack(self._data[start + 4 : end])


def _offset(data: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
