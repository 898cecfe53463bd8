"""What a revocation would change."""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from service.domain.experience import Source
from service.domain.provenance import Batches, Culprit, Made, Tally, descended
from service.domain.version_record import Mark
from service.problems import Conflict


@dataclass(frozen=True, slots=True)
class Asked:
    """What to take back, who asked and why; `unserved` allows that no version is left to serve."""

    culprit: Culprit
    who: str = ""
    why: str = ""
    unserved: bool = False


class Revoked(Struct, frozen=True):
    """The result of a revocation; with `dry_run`, what the result would be.

    `discarded` counts the vectors by the place that they were removed from. `lost` and `relearned`
    count vectors of other senders: those that cannot be learned again because they are not kept,
    and those that went back to the buffer. `labels` counts the deleted labels of the revoked key.
    """

    dry_run: bool
    champion: int | None
    generation: int
    versions: tuple[int, ...]
    discarded: Mapping[str, int]
    lost: Batches
    relearned: Batches
    labels: int | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Plan:
    """The effect of a revocation on the detector's state at `generation` and `last_version`.

    `marked` are all versions that learned of the revoked data. `again` are ranges of learned
    entries that go back to the buffer, as far as they are kept. `innocent` counts what the versions
    that were not marked before learned from other senders.
    """

    uid: str
    generation: int
    last_version: int
    champion: int | None
    target: int | None
    marked: tuple[int, ...]
    again: tuple[tuple[str, str], ...]
    discarded: Mapping[str, int]
    innocent: Tally
    relearned: Tally

    def check(self, asked: Asked) -> None:
        """Raise Conflict if it leaves no version to serve and the request does not allow that."""
        if self.champion is not None and self.target is None and not asked.unserved:
            raise Conflict(
                "Every version that is kept learned of the revoked data. Import and promote a "
                "clean one first, or send `without_champion` to serve none until one is learned."
            )

    def foreseen(self) -> "Revoked":
        """Return the answer to a dry run."""
        return Revoked(
            dry_run=True,
            champion=self.target,
            generation=self.generation + (self.target != self.champion),
            versions=self.marked,
            discarded=self.discarded,
            lost=self.innocent.total(less=self.relearned),
            relearned=self.relearned.total(),
        )


@dataclass(frozen=True, slots=True)
class State:
    """What the store says of a detector's versions at one moment.

    `promoted` are those that ever were champion, the latest first; `marks` are of those revoked.
    """

    uid: str
    generation: int
    last_version: int
    champion: int | None
    cursor: str
    waiting: list[tuple[str, str]]
    promoted: list[int]
    artifacts: set[int]
    marks: dict[int, Mark]
    made: list[Made]
    sources: dict[int, list[Source]]

    def reached_by(self, culprit: Culprit) -> tuple[set[int], set[int]]:
        """Return the versions that it reaches, and those of them whose data must be relearned.

        Versions that an earlier revocation marked are left out of the second set: that revocation
        has relearned their data. Those that it marked for this same culprit stay in.
        """
        guilty = {n for n, found in self.sources.items() if any(map(culprit.sent, found))}
        mine = {n for n, mark in self.marks.items() if getattr(mark, culprit.kind) == culprit.id}
        marked = descended(self.made, guilty | mine)
        return marked, (marked - set(self.marks) | mine) & set(self.promoted)

    def clean(self, marked: set[int]) -> int | None:
        """Return the champion after `marked` are marked: the present one, or the latest clean."""
        if self.champion not in marked:
            return self.champion
        kept = (n for n in self.promoted if n in self.artifacts)
        return next((n for n in kept if n not in marked | set(self.marks)), None)
