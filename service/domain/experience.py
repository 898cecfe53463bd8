"""An experience: what one retraining takes from the buffer, and who sent it."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson
from msgspec import Struct
from numpy.typing import NDArray

BATCHES_RECORDED = 1000  # batch ids and senders that a version's record names; `sources` has all


class Source(NamedTuple):
    """Vectors that came in one batch; `sender` is the API key's id, '' where nobody asked."""

    batch: str
    sender: str
    vectors: int


class ExperienceSummary(Struct, frozen=True):
    """What a version's record says of its experience: its range in the buffer, and who sent it.

    `senders` and `batches` are some of them where there are very many.
    """

    first: str
    last: str
    n: int
    batch_count: int
    senders: tuple[str, ...]
    batches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Experience:
    """What one retraining learns: the entries in the range `(first, last]` of the stream.

    `champion` (None before the first version), `generation` and `champion_nonce` are those of the
    moment it was taken: a promotion stands only while they do. `vectors` is `(n, d)` float32.
    `sources` has one item an entry, in their order.
    """

    name: str
    uid: str
    generation: int
    champion: int | None
    first: str
    last: str
    vectors: NDArray[np.float32]
    sources: tuple[Source, ...]
    champion_nonce: str = ""

    @property
    def n(self) -> int:
        """How many vectors."""
        return int(self.vectors.shape[0])

    @property
    def bytes(self) -> int:
        """How many bytes of the buffer they take."""
        return int(self.vectors.nbytes)

    @property
    def batch_ids(self) -> tuple[str, ...]:
        """The batches, in the order of the buffer."""
        return tuple(source.batch for source in self.sources)

    @property
    def senders(self) -> tuple[str, ...]:
        """Who sent them, each once."""
        return tuple(sorted({source.sender for source in self.sources} - {""}))

    def summary(self) -> ExperienceSummary:
        """Return what a version's record says of it."""
        return ExperienceSummary(
            first=self.first,
            last=self.last,
            n=self.n,
            batch_count=len(self.sources),
            senders=tuple(self.senders[:BATCHES_RECORDED]),
            batches=tuple(self.batch_ids[:BATCHES_RECORDED]),
        )


def packed(sources: Iterable[Source]) -> bytes:
    """Return the sources as they are kept with a version, which is for long: some 10 bytes each."""
    return zlib.compress(orjson.dumps([list(source) for source in sources]))


def unpacked(data: bytes) -> list[Source]:
    """Return what `packed` was given."""
    return [Source(*source) for source in orjson.loads(zlib.decompress(data))]
