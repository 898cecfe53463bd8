"""The origin of versions: which batches a version learned, from whom, and which versions before.

Everything is computed from version records and their lists of batches, without the store.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from service.domain.experience import BATCHES_RECORDED, BatchPart
from service.domain.version_record import BufferRange, VersionRecord

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RevocationTarget:
    """The data to revoke: one batch, or everything that one API key has sent so far."""

    kind: Literal["batch", "key"]
    id: str

    def includes(self, part: BatchPart) -> bool:
        """Return whether the vectors of this part are among the data to revoke."""
        return self.id == (part.batch if self.kind == "batch" else part.sender)


@dataclass(frozen=True, slots=True)
class VersionOrigin:
    """The origin of one version; it took the range `(first, last]` from the buffer."""

    number: int
    parent: int | None
    sha256: str | None
    parent_sha256: str | None
    first: str | None
    last: str | None

    @classmethod
    def of(cls, record: VersionRecord) -> "VersionOrigin":
        """Return the origin that a version's record states."""
        experience = record.experience or BufferRange()
        return cls(
            record.version,
            record.parent,
            record.sha256,
            record.parent_sha256,
            experience.first,
            experience.last,
        )


def descended(origins: Sequence[VersionOrigin], affected: Iterable[int]) -> set[int]:
    """Return the numbers of the `affected` versions, their descendants, and copies of these.

    `origins` is sorted by number, so a parent comes before its children. A copy of a version has
    the same sha256.
    """
    reached, digests = set(affected), set[str]()
    for origin in origins:
        if origin.parent in reached or digests & {origin.sha256, origin.parent_sha256}:
            reached.add(origin.number)
        if origin.number in reached and origin.sha256:
            digests.add(origin.sha256)
    return reached


def ranges(origins: Iterable[VersionOrigin]) -> list[tuple[str, str]]:
    """Return the ranges `(first, last]` that the versions took; adjacent ranges are joined."""
    ranges: list[tuple[str, str]] = []
    for origin in origins:
        if origin.first is None or origin.last is None:
            continue
        if ranges and ranges[-1][1] == origin.first:
            ranges[-1] = (ranges[-1][0], origin.last)
        else:
            ranges.append((origin.first, origin.last))
    return ranges


def position(entry: str) -> Position:
    """Return the id of a stream entry as a pair of numbers, which can be compared."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)


def within(entry: str, ranges: Iterable[tuple[str, str]]) -> bool:
    """Return whether the entry with this id is in one of the ranges `(first, last]`."""
    at = position(entry)
    return any(position(first) < at <= position(last) for first, last in ranges)


class Batches(Struct, frozen=True):
    """How many vectors there are, in which batches, and from which senders.

    `batches` and `senders` are ids of batches and of API keys, at most 1,000 each.
    """

    vectors: int
    batch_count: int
    batches: tuple[str, ...]
    senders: tuple[str, ...]


@dataclass
class VectorCounts:
    """Counts of vectors by batch and sender."""

    vectors: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, part: BatchPart) -> None:
        """Add the vectors of this part."""
        self.vectors[part.batch, part.sender] += part.vectors

    def total(self, *, less: "VectorCounts | None" = None) -> Batches:
        """Return the counts for an answer, minus the counts in `less`."""
        left = self.vectors - less.vectors if less else self.vectors
        return Batches(
            vectors=sum(left.values()),
            batch_count=len(left),
            batches=tuple(batch for batch, _ in left)[:BATCHES_RECORDED],
            senders=tuple(sorted({sender for _, sender in left} - {""}))[:BATCHES_RECORDED],
        )
