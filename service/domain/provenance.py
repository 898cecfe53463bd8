"""The lineage of data: what a version learned, from whom, and which versions it builds on.

Everything is computed from version records and the batches kept with them, without the store.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from service.domain.experience import BATCHES_RECORDED, Source
from service.domain.version_record import Taken, VersionRecord

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Culprit:
    """What is to be unlearned: a batch, or everything that came with an API key so far."""

    kind: Literal["batch", "key"]
    id: str

    def sent(self, source: Source) -> bool:
        """Return whether these vectors are of it."""
        return self.id == (source.batch if self.kind == "batch" else source.sender)


@dataclass(frozen=True, slots=True)
class Made:
    """A version as far as its lineage goes; `first` and `last` bound what it took of the buffer."""

    number: int
    parent: int | None
    sha256: str | None
    parent_sha256: str | None
    first: str | None
    last: str | None

    @classmethod
    def of(cls, record: VersionRecord) -> "Made":
        """Return it from a version's record."""
        taken = record.experience or Taken()
        return cls(
            record.version,
            record.parent,
            record.sha256,
            record.parent_sha256,
            taken.first,
            taken.last,
        )


def descended(made: Sequence[Made], guilty: Iterable[int]) -> set[int]:
    """Return the `guilty` versions, their descendants, and the copies of either.

    `made` is in the order of the numbers: a parent goes before its children.
    """
    found, digests = set(guilty), set[str]()
    for one in made:
        if one.parent in found or digests & {one.sha256, one.parent_sha256}:
            found.add(one.number)
        if one.number in found and one.sha256:
            digests.add(one.sha256)
    return found


def ranges(made: Iterable[Made]) -> list[tuple[str, str]]:
    """Return the ranges `(first, last]` of the buffer that the versions took, neighbours joined."""
    found: list[tuple[str, str]] = []
    for one in made:
        if one.first is None or one.last is None:
            continue
        if found and found[-1][1] == one.first:
            found[-1] = (found[-1][0], one.last)
        else:
            found.append((one.first, one.last))
    return found


def position(entry: str) -> Position:
    """Return the id of a stream's entry as a pair of numbers, which can be compared."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)


def within(entry: str, found: Iterable[tuple[str, str]]) -> bool:
    """Return whether an entry is in one of the ranges `(first, last]`."""
    at = position(entry)
    return any(position(first) < at <= position(last) for first, last in found)


class Batches(Struct, frozen=True):
    """How many vectors of how many normal batches, with some of these and of their senders."""

    vectors: int
    batch_count: int
    batches: tuple[str, ...]
    senders: tuple[str, ...]


@dataclass
class Tally:
    """Vectors, counted by batch and sender."""

    vectors: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, source: Source) -> None:
        """Count these vectors."""
        self.vectors[source.batch, source.sender] += source.vectors

    def total(self, *, less: "Tally | None" = None) -> Batches:
        """Return the count as an answer has it, without what is counted in `less`."""
        left = self.vectors - less.vectors if less else self.vectors
        return Batches(
            vectors=sum(left.values()),
            batch_count=len(left),
            batches=tuple(batch for batch, _ in left)[:BATCHES_RECORDED],
            senders=tuple(sorted({sender for _, sender in left} - {""}))[:BATCHES_RECORDED],
        )
