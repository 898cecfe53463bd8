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
    """What is to be taken back, by whom and why; `unserved` where no clean version need be left."""

    culprit: Culprit
    who: str = ""
    why: str = ""
    unserved: bool = False


class Revoked(Struct, frozen=True):
    """What a revocation came to, or would come to with `dry_run`.

    `discarded` counts vectors by where they were, `lost` those of others that are not kept,
    `relearned` those that went back to the buffer. `labels` are those of the revoked key.
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
    """What a revocation comes to, as things stand at `generation` and `last_version`.

    `marked` are all versions that it reaches, `again` the ranges of the buffer that go back to it
    as far as they are kept, `innocent` what the versions not marked before learned from others.
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
        """Raise Conflict where it leaves no version to serve and that was not asked for."""
        if self.champion is not None and self.target is None and not asked.unserved:
            raise Conflict(
                "No version that is kept is without it. Import one and promote it first, or let "
                "none serve until one is learned: `without_champion`."
            )

    def foreseen(self) -> "Revoked":
        """Return what the answer says of it while nothing is done yet."""
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
        """Return the versions that it reaches, and those of them whose data is to be relearned.

        What an earlier revocation reached, that one relearns: its own culprit is among that.
        """
        guilty = {n for n, found in self.sources.items() if any(map(culprit.sent, found))}
        mine = {n for n, mark in self.marks.items() if getattr(mark, culprit.kind) == culprit.id}
        marked = descended(self.made, guilty | mine)
        return marked, (marked - set(self.marks) | mine) & set(self.promoted)

    def clean(self, marked: set[int]) -> int | None:
        """Return the champion once `marked` are: the one of now, or the latest other kept."""
        if self.champion not in marked:
            return self.champion
        kept = (n for n in self.promoted if n in self.artifacts)
        return next((n for n in kept if n not in marked | set(self.marks)), None)
