"""What a process scores with: one version, its place in history, and the threshold in force."""

from dataclasses import dataclass
from typing import NamedTuple, Self

from models import Version
from models.parts.calibration import Threshold
from models.parts.labels import Labels
from service.domain.detector import Pointer, older
from service.domain.inline_bounds import WIDEST, InlineBounds
from service.domain.row_rules import NO_RULES, RowRules


class Loaded(NamedTuple):
    """A verified version, when it was made, the sha256 of its artifact, its bytes in memory."""

    version: Version
    trained_at: float | None = None
    sha256: str | None = None
    size: int = 0


class Terms(NamedTuple):
    """What a config, labels and this machine make of a version; see `Champion`."""

    threshold: Threshold
    labels: Labels | None = None
    rules: RowRules = NO_RULES
    inline: InlineBounds = WIDEST


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """A frozen snapshot; a request reads one reference to it and nothing else.

    `uid` tells incarnations of a name apart, `generation` counts moves of the champion pointer
    and `config_revision` changes of the config. A pinned version borrows both from the detector.
    `labels` are those that decided the threshold, where they do. `sha256` is that of the artifact
    in the store, and `stored` the whole of what the store said when this began to serve; both are
    None in what the first release kept on disk. `rules` say which rows do not count.
    `bytes` is about what it takes in memory.
    `stands_for` is the entity, without a version of its own, that a request was for.
    `inline` is what may be judged in the event loop, by what the version was measured to cost.
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

    @classmethod
    def of(cls, name: str, number: int, stored: Pointer, loaded: Loaded, terms: Terms) -> Self:
        """Return version `number` of detector `name` as it serves while the store says `stored`."""
        return cls(
            name=name,
            uid=stored.uid,
            number=number,
            generation=stored.generation,
            config_revision=stored.config_revision,
            version=loaded.version,
            threshold=terms.threshold,
            trained_at=loaded.trained_at,
            labels=terms.labels,
            sha256=loaded.sha256,
            stored=stored,
            rules=terms.rules,
            inline=terms.inline,
            bytes=loaded.size,
        )

    @property
    def loaded(self) -> Loaded:
        """Return the loaded version and its artifact's sha256, time and size."""
        return Loaded(self.version, self.trained_at, self.sha256, self.bytes)

    @property
    def plain(self) -> bool:
        """Whether every row is judged as it was sent."""
        return self.version.config.derived_by is None and not self.rules

    @property
    def pinned(self) -> bool:
        """Whether the detector had another champion when this was loaded: a request named it."""
        return self.number != self.pointer.champion

    def supersedes(self, other: "Champion | None") -> bool:
        """Return whether this is at least as new as `other`; another incarnation always is."""
        if other is None or other.uid != self.uid:
            return True
        return not older(self.pointer, other.pointer)

    @property
    def pointer(self) -> Pointer:
        """Return the pointer that the store held when this began to serve, as far as known."""
        return self.stored or Pointer(self.uid, self.number, self.generation, self.config_revision)
