"""Writes the page that Prometheus scrapes, in slices. 1,000 detectors have 50,000 lines."""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice
from typing import Protocol, TypeVar

from prometheus_client import generate_latest
from prometheus_client.core import Metric

T = TypeVar("T")

SLICE_SECONDS = 0.0004  # seconds of the event loop before requests get their turn
_HEAD = b"\n# HELP "  # a new line in a label or in a help text is escaped


class Sliced(Protocol):
    """A source of metrics that yields them in small pieces."""

    def slices(self) -> Iterator[Metric | None]:
        """Yield the metric families in pieces. Making a piece takes far less than a millisecond.

        All pieces of a family have its name. They may come in any order. None means that there is
        no piece yet, but that the event loop may do other work now.
        """


class Page:
    """A page in the exposition format, made of pieces of metric families."""

    def __init__(self) -> None:
        self._families: dict[bytes, bytearray] = {}

    def add(self, piece: Metric) -> None:
        """Append the samples of a piece to those of its family."""
        for block in (b"\n" + generate_latest(_OnePiece(piece))).split(_HEAD)[1:]:
            name = block.partition(b" ")[0]
            if name not in self._families:
                self._families[name] = bytearray(_HEAD[1:] + block.rstrip(b"\n") + b"\n")
                continue
            _help, _type, *samples = block.rstrip(b"\n").split(b"\n")
            self._families[name] += b"".join(sample + b"\n" for sample in samples)

    def content(self) -> bytes:
        """Return the page."""
        return b"".join(self._families.values())


class _OnePiece:
    """A registry of one piece of one family."""

    def __init__(self, piece: Metric) -> None:
        self._piece = piece

    def collect(self) -> Iterator[Metric]:
        yield self._piece


async def write_page(*sources: Sliced) -> bytes:
    """Return the page of all `sources`. The event loop does other work between the pieces."""
    page, began = Page(), time.perf_counter()
    for source in sources:
        for piece in source.slices():
            if piece is not None:
                page.add(piece)
            if time.perf_counter() - began > SLICE_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
    return page.content()


def batched(values: Iterator[T], n: int) -> Iterator[list[T]]:
    """Yield the values in lists of n. The last list may be shorter."""
    while batch := list(islice(values, n)):
        yield batch
