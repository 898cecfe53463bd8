"""The plan of a revocation: which versions and data it affects."""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from service.domain.experience import Source
from service.domain.provenance import Batches, Culprit, Made, Tally, descended
from service.domain.version_record import Mark
from service.problems import Conflict


@dataclass(frozen=True, slots=True)
class Asked:
    """What to revoke, who asked and why; `unserved` allows that no version serves afterwards.

    If it takes back a `decision` on an incident, the audit trail's hourly bound of a sender holds.
    """

    culprit: Culprit
    who: str = ""
    why: str = ""
    unserved: bool = False
    decision: bool = False


class Revoked(Struct, frozen=True):
    """The result of a revocation; with `dry_run`, what the result would be.

    `discarded` counts the removed vectors by the place where they were. `lost` and `relearned`
    count vectors of other senders. `lost` ones cannot be learned again, because they are not kept;
    `relearned` ones went back to the buffer. `labels` counts the deleted labels of a revoked key.
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
    """The effect of a revocation on a detector, valid at this `generation` and `last_version`.

    `champion` serves now, and `target` afterwards. `marked` are all versions that the revoked data
    reached. `again` are ranges of learned entries that go back to the buffer, as far as they are
    kept. `innocent` counts what newly marked versions learned from other senders, and `relearned`
    the part of it that goes back to the buffer.
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
        """Raise Conflict if no version could serve afterwards, unless the request allows that."""
        if self.champion is not None and self.target is None and not asked.unserved:
            raise Conflict(
                "Every stored version learned from the revoked data. Import and promote a clean "
                "version first, or send `without_champion` to serve none until one is learned."
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
    """The versions of a detector in the store at one moment.

    `promoted` are the versions that ever were champion, the latest first. `artifacts` are those
    whose artifact is kept. `marks` are the marks of revoked versions. `sources` says what each
    version learned.
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
        """Return the versions that learned from the culprit, and those whose data is relearned.

        The first set includes descendants and copies. The second set leaves out versions that an
        earlier revocation marked for another culprit, because their data was relearned then.
        """
        guilty = {n for n, found in self.sources.items() if any(map(culprit.sent, found))}
        mine = {n for n, mark in self.marks.items() if getattr(mark, culprit.kind) == culprit.id}
        marked = descended(self.made, guilty | mine)
        return marked, (marked - set(self.marks) | mine) & set(self.promoted)

    def clean(self, marked: set[int]) -> int | None:
        """Return the champion after `marked` are revoked: the present or the latest clean one."""
        if self.champion not in marked:
            return self.champion
        kept = (n for n in self.promoted if n in self.artifacts)
        return next((n for n in kept if n not in marked | set(self.marks)), None)
