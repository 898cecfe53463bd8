"""A champion: the version that a process scores with, its state in the store, its threshold."""

from dataclasses import dataclass
from typing import NamedTuple, Self

from models import Version
from models.parts.calibration import Threshold
from models.parts.labels import Labels
from service.domain.detector import Pointer, older
from service.domain.inline_bounds import WIDEST, InlineBounds
from service.domain.row_rules import NO_RULES, RowRules


class LoadedVersion(NamedTuple):
    """A verified version, its training time, its artifact's sha256, its size, its signature."""

    version: Version
    trained_at: float | None = None
    sha256: str | None = None
    size: int = 0
    signature: str | None = None


class ServingOptions(NamedTuple):
    """The settings of a champion that come from the config, the labels and this machine."""

    threshold: Threshold
    labels: Labels | None = None
    rules: RowRules = NO_RULES
    inline: InlineBounds = WIDEST


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """A frozen snapshot of all that a request needs: a version, its threshold and its rules.

    `uid` identifies the detector: a detector that is deleted and made again gets another `uid`.
    `generation` counts the changes of the champion, and `config_revision` those of the config. For
    a pinned version both are those of the detector. `labels` are set if they decided the threshold.
    `sha256` is the hash of the artifact in the store. `stored` is the pointer in the store when
    this champion began to serve. Both are None in files that the first release wrote to disk.
    `rules` say which rows do not count. `bytes` is the estimated size in memory. `stands_for` is
    the requested entity, if the entity has no version of its own. `inline` bounds the bodies that
    the event loop may judge; the bounds come from the measured cost of the version. `signature` is
    that of the artifact, None if nobody signed it.
    """

    name: str
    uid: str
    number: int
    generation: int
    config_revision: int
    version: Version
    threshold: Threshold
    trained_at: float | None = None
    labels: Labels | None = None
    sha256: str | None = None
    stored: Pointer | None = None
    rules: RowRules = NO_RULES
    inline: InlineBounds = WIDEST
    bytes: int = 0
    stands_for: str | None = None
    signature: str | None = None

    @classmethod
    def of(
        cls, name: str, number: int, stored: Pointer, loaded: LoadedVersion, options: ServingOptions
    ) -> Self:
        """Return version `number` of detector `name`; `stored` is the pointer in the store."""
        return cls(
            name=name,
            uid=stored.uid,
            number=number,
            generation=stored.generation,
            config_revision=stored.config_revision,
            version=loaded.version,
            threshold=options.threshold,
            trained_at=loaded.trained_at,
            labels=options.labels,
            sha256=loaded.sha256,
            stored=stored,
            rules=options.rules,
            inline=options.inline,
            bytes=loaded.size,
            signature=loaded.signature,
        )

    @property
    def loaded(self) -> LoadedVersion:
        """Return the loaded version, and what belongs to its artifact."""
        return LoadedVersion(self.version, self.trained_at, self.sha256, self.bytes, self.signature)

    @property
    def plain(self) -> bool:
        """Whether every row is judged as it was sent."""
        return self.version.config.derived_by is None and not self.rules

    @property
    def pinned(self) -> bool:
        """Whether this is a pinned version: another version was champion when it was loaded."""
        return self.number != self.pointer.champion

    def supersedes(self, other: "Champion | None") -> bool:
        """Return whether this is at least as new as `other`, or has another `uid`."""
        if other is None or other.uid != self.uid:
            return True
        return not older(self.pointer, other.pointer)

    @property
    def pointer(self) -> Pointer:
        """The pointer in the store when this champion began to serve, as far as it is known."""
        return self.stored or Pointer(self.uid, self.number, self.generation, self.config_revision)
