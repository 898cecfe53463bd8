"""An experience: what one retraining takes from the buffer, and who sent it."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import orjson
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from service.domain.chosen_context import ChosenContext
from service.domain.detector_config import DetectorConfig
from service.domain.raw_batch import RawBatch, learnable

BATCHES_RECORDED = (
    1000  # most batch ids and senders in a version's record; the key `sources` has all
)


class BatchPart(NamedTuple):
    """A number of vectors of one batch; `sender` is the API key's id, or '' without a key."""

    batch: str
    sender: str
    vectors: int


class ExperienceSummary(Struct, frozen=True):
    """The experience in a version's record: its range in the buffer, and who sent it.

    `senders` and `batches` name at most 1,000 each. `traces` are the first trace ids of the
    requests, at most 10.
    """

    first: str
    last: str
    n: int
    batch_count: int
    senders: tuple[str, ...]
    batches: tuple[str, ...]
    traces: tuple[str, ...] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Experience:
    """What one retraining learns: the entries in the range `(first, last]` of the buffer.

    `champion` (None before the first version), `generation` and `champion_nonce` are those of the
    moment when the entries were taken. A promotion is valid only while they are unchanged.
    `vectors` is `(n, d)` float32. `parts` has one item for each entry, in the same order.
    `bytes` is what the vectors take in the buffer.
    `traces` are the first trace ids of the requests.

    If some batches arrived before the context was chosen, `raw` has the batches as they were sent.
    `vectors` are then derived from them with the context `chosen`, and `kept` (n,) marks the rows
    that can be learned.
    """

    name: str
    uid: str
    generation: int
    champion: int | None
    first: str
    last: str
    vectors: NDArray[np.float32]
    parts: tuple[BatchPart, ...]
    bytes: int
    champion_nonce: str = ""
    raw: tuple[RawBatch, ...] = ()
    kept: NDArray[np.bool_] | None = None
    chosen: ChosenContext | None = None
    traces: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many vectors were taken from the buffer."""
        return sum(part.vectors for part in self.parts)

    def derived(self, config: DetectorConfig, chosen: ChosenContext | None) -> Self:
        """Return the experience with derived features. If no context is chosen, choose one now."""
        if not self.raw:
            return self
        features, kept, choice = learnable(self.raw, config, chosen)
        return replace(self, vectors=features, kept=kept, chosen=choice, raw=())

    @property
    def batch_ids(self) -> tuple[str, ...]:
        """The ids of the batches, in the order of the buffer."""
        return tuple(part.batch for part in self.parts)

    @property
    def senders(self) -> tuple[str, ...]:
        """The ids of the API keys that sent the vectors, each once."""
        return tuple(sorted({part.sender for part in self.parts} - {""}))

    def summary(self) -> ExperienceSummary:
        """Return the summary of the experience for the record of a version."""
        return ExperienceSummary(
            first=self.first,
            last=self.last,
            n=self.n,
            batch_count=len(self.parts),
            senders=tuple(self.senders[:BATCHES_RECORDED]),
            batches=tuple(self.batch_ids[:BATCHES_RECORDED]),
            traces=self.traces or UNSET,
        )


def packed(parts: Iterable[BatchPart]) -> bytes:
    """Return the parts in compressed form, about 10 bytes each, to keep with a version."""
    return zlib.compress(orjson.dumps([list(part) for part in parts]))


def unpacked(data: bytes) -> list[BatchPart]:
    """Return the parts that `packed` wrote."""
    return [BatchPart(*part) for part in orjson.loads(zlib.decompress(data))]
