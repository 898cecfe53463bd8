"""The plan of a revocation: which versions and data it affects."""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from service.domain.experience import BatchPart
from service.domain.provenance import (
    Batches,
    RevocationTarget,
    VectorCounts,
    VersionOrigin,
    descended,
)
from service.domain.version_record import RevocationMark
from service.problems import Conflict


@dataclass(frozen=True, slots=True)
class RevocationRequest:
    """What to revoke, who asked and why; `unserved` allows that no version serves afterwards.

    `decision` says that the request takes back a decision about an incident. Then its entry in the
    audit trail counts against the hourly bound of the sender. `labelled` says that the target has
    labels or dismissals, so that it needs no rows.
    """

    target: RevocationTarget
    who: str = ""
    why: str = ""
    unserved: bool = False
    decision: bool = False
    labelled: bool = False


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
class RevocationPlan:
    """The effect of a revocation on a detector, valid at this `generation` and `last_version`.

    `champion` serves now, and `next_champion` afterwards. `marked` are all versions that learned
    the revoked data, and their descendants; `served` says whether one of them was champion. `again`
    are ranges of learned entries that go back to the buffer if they are still stored. `others`
    counts the vectors of other senders that newly marked versions learned. `relearned` counts those
    of them that go back to the buffer.
    """

    uid: str
    generation: int
    last_version: int
    champion: int | None
    next_champion: int | None
    marked: tuple[int, ...]
    again: tuple[tuple[str, str], ...]
    discarded: Mapping[str, int]
    others: VectorCounts
    relearned: VectorCounts
    served: bool

    def check(self, request: RevocationRequest) -> None:
        """Raise Conflict if no version could serve afterwards, unless the request allows that.

        Raises it too if a decision is to be taken back and a version learned its rows.
        """
        if request.decision and self.served:
            raise Conflict("A version that learned these rows was promoted.")
        if self.champion is not None and self.next_champion is None and not request.unserved:
            raise Conflict(
                "Every stored version learned from the revoked data. Import and promote a clean "
                "version first, or send `without_champion` to serve none until one is learned."
            )

    def foreseen(self) -> Revoked:
        """Return the answer to a dry run."""
        return Revoked(
            dry_run=True,
            champion=self.next_champion,
            generation=self.generation + (self.next_champion != self.champion),
            versions=self.marked,
            discarded=self.discarded,
            lost=self.others.total(less=self.relearned),
            relearned=self.relearned.total(),
        )


@dataclass(frozen=True, slots=True)
class DetectorVersions:
    """The versions of a detector in the store at one moment.

    `waiting` are the ranges of parked entries. `promoted` are the versions that ever were champion,
    the latest first. `artifacts` are those whose artifact is kept. `marks` are the marks of revoked
    versions. `parts` are the parts of batches that each version learned.
    """

    uid: str
    generation: int
    last_version: int
    champion: int | None
    cursor: str
    waiting: list[tuple[str, str]]
    promoted: list[int]
    artifacts: set[int]
    marks: dict[int, RevocationMark]
    origins: list[VersionOrigin]
    parts: dict[int, list[BatchPart]]

    def reached_by(self, target: RevocationTarget) -> tuple[set[int], set[int]]:
        """Return the versions that learned from the target, and those whose data is relearned.

        The first set includes descendants and copies. The second set has only versions that were
        champion. It leaves out versions that an earlier revocation marked for another target,
        because their data was relearned then.
        """
        learned = {n for n, parts in self.parts.items() if any(map(target.includes, parts))}
        marked_before = {
            n for n, mark in self.marks.items() if getattr(mark, target.kind) == target.id
        }
        marked = descended(self.origins, learned | marked_before)
        return marked, (marked - set(self.marks) | marked_before) & set(self.promoted)

    def clean(self, marked: set[int]) -> int | None:
        """Return the champion after `marked` are revoked: the present or the latest clean one."""
        if self.champion not in marked:
            return self.champion
        kept = (n for n in self.promoted if n in self.artifacts)
        return next((n for n in kept if n not in marked | set(self.marks)), None)
