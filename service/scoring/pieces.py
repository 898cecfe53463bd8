"""Cuts large bodies into pieces, since a decoder holds the interpreter lock until it returns.

While one thread decodes a body, the event loop waits for the lock. A piece holds it for about 2 ms.
"""

import json
import re
from collections.abc import Iterator, Sequence

import numpy as np

from service.problems import BadVectors, TooLarge

PIECE = 256 * 1024  # bytes; a piece is longer only if one element is longer
LONGEST = 8 * 2**20  # bytes of one element: 65,536 columns with names of 64 characters take 6 MiB
MAX_ROWS = 2**20  # in one request; the JSON answer to so many rows has about 60 MB

_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1
_NAME = re.compile(rb'\s*("(?:[^"\\]|\\.)*")')
_MALFORMED = b"[,]"  # no decoder takes this


def check_rows(n: int) -> None:
    """Raise TooLarge if a request has more than MAX_ROWS rows."""
    if n > MAX_ROWS:
        raise TooLarge(f"A request has at most {MAX_ROWS} vectors. Send them in parts.")


def check_length(piece: bytes, row: int) -> None:
    """Raise BadVectors if the last element of a piece, which begins with `row`, is too long."""
    if len(piece) > PIECE + LONGEST:
        raise BadVectors(f"The row does not end within {LONGEST} bytes.", row=row)


def lines(text: bytes) -> Iterator[bytes]:
    """Yield `text` in pieces of whole lines."""
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + PIECE) + 1 or len(text)
        yield text[start:end]
        start = end


def lists(text: bytes) -> Iterator[bytes]:
    """Yield the elements of the JSON list `text` as shorter JSON lists, in their order.

    If `text` is malformed, at least one piece is malformed.
    """
    if len(text) <= PIECE or not text.startswith(b"["):
        yield text
        return
    start = 1
    for commas in _top_level_commas(text):
        end = commas[-1]
        piece = text[start:end]
        yield b"[%b]" % piece if piece.strip() else _MALFORMED
        start = end + 1
    rest = text[start:]
    yield b"[" + rest if start == 1 or rest.strip() != b"]" else _MALFORMED


def names(text: bytes) -> Iterator[str]:
    """Yield the names of the fields of the valid JSON object `text`, in their order."""
    starts = [text.index(b"{")]
    yield from _names_at(text, starts)
    for commas in _top_level_commas(text):
        yield from _names_at(text, commas)


def _names_at(text: bytes, places: Sequence[int]) -> Iterator[str]:
    for place in places:
        if name := _NAME.match(text, place + 1):
            yield json.loads(name[1])


def _top_level_commas(text: bytes) -> Iterator[list[int]]:
    """Yield the places of the commas between the elements of `text`, by blocks that have some."""
    depth, inside, escaped = 0, 0, False
    for start in range(0, len(text), PIECE):
        block = text[start : start + PIECE]
        if escaped:
            block = b"_" + block[1:]
        if b"\\" in block:
            block = block.replace(rb"\\", b"__").replace(rb"\"", b"__")
        escaped = block.endswith(b"\\")
        codes = np.frombuffer(block, np.uint8)
        within = (inside + np.cumsum(codes == ord('"'), dtype=np.int32)) % 2
        depths = depth + np.cumsum(_STEPS[codes] * (within == 0), dtype=np.int32)
        commas = np.flatnonzero((codes == ord(",")) & (within == 0) & (depths == 1))
        if len(commas):
            yield (start + commas).tolist()
        depth, inside = int(depths[-1]), int(within[-1])
