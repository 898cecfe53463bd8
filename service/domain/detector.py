"""A detector as the store holds it at one moment."""

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from models import MIN_VECTORS
from service.domain.chosen_context import ChosenContext
from service.domain.detector_config import DetectorConfig
from service.domain.drift_report import Drift
from service.domain.incident import IncidentRule


class Pointer(NamedTuple):
    """The state of a detector that an API process compares with what it serves.

    A store that was restored from a copy gives the same numbers a second time. The nonces and the
    sha256 of the champion's artifact tell such states apart: a new nonce is drawn at every move of
    the champion and every change of the config. `changed` is the time of the last such change, in
    milliseconds since 1970. The first release wrote none of these fields.
    """

    uid: str
    champion: int | None
    generation: int
    config_revision: int
    champion_nonce: str = ""
    config_nonce: str = ""
    sha256: str | None = None
    changed: int = 0


def older(pointer: Pointer, other: Pointer) -> bool:
    """Return whether `pointer` is an earlier state than `other` of the same detector.

    A store that was restored from a copy gives the numbers of lost changes a second time. So lower
    numbers are not enough: by the store's clock, `pointer` must not be the later change.
    """
    numbers = (pointer.generation, pointer.config_revision)
    return numbers < (other.generation, other.config_revision) and pointer.changed <= other.changed


class Retraining(Struct, frozen=True):
    """Whether a retraining is queued or running; `progress` goes from 0 to 1.

    While it runs, `loss_old` and `loss_new` are the latest mean losses (nats) on old and on new
    vectors. `seconds_left` is an estimate.
    """

    state: Literal["idle", "queued", "running"]
    progress: float
    seconds_left: float | None = None
    loss_old: float | None = None
    loss_new: float | None = None


class LastRetraining(Struct, frozen=True):
    """The outcome of the last retraining; `reasons` say why its version was not promoted.

    `finished_at` is RFC 3339. If the experience had rows labelled normal, `labelled` says how many
    of them still alarm.
    """

    outcome: Literal["promoted", "rejected", "failed"]
    version: int | None
    finished_at: str | None
    reasons: tuple[str, ...] = ()
    seconds: float | None = None
    labelled: str | UnsetType = UNSET


class Retrains(Struct, frozen=True):
    """How many retrainings ended with each outcome."""

    promoted: int = 0
    rejected: int = 0
    failed: int = 0


class IncidentTotals(NamedTuple):
    """How many incidents are open and page people, and how many opened and closed so far.

    `unreported` counts open incidents that page nobody, because their rows were old at arrival.
    """

    open: int = 0
    opened: int = 0
    closed: int = 0
    unreported: int = 0

    @property
    def unfinished(self) -> int:
        """How many incidents are open, including those that page nobody."""
        return self.opened - self.closed


class Mute(NamedTuple):
    """Until `until` the detector pages nobody and starts no retraining by itself.

    `until` is in seconds since 1970.
    """

    until: float
    why: str
    who: str


class MessageTotals(NamedTuple):
    """How many messages the webhook's receiver got, and how many were dropped undelivered."""

    sent: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Detector:
    """The state of a detector at one moment; counts are numbers of vectors.

    A detector that is deleted and made again gets another `uid`. `requested` and `served` count
    the retrainings that people asked for: number k has ended if `served >= k`. `dimension` is the
    number of features in a stored row. `labelled` says whether a person labelled some of the
    buffered vectors normal. `consumed` counts the vectors that any version learned. `learned`
    counts those that the champion or its ancestors learned. `thinned` counts the vectors that
    were known so well that they were not kept. `decided` counts the decisions about incidents.
    """

    name: str
    uid: str
    created_at: str
    config: DetectorConfig
    config_revision: int
    dimension: int | None
    champion: int | None
    generation: int
    last_version: int
    buffered: int
    buffered_bytes: int
    buffer_oldest: float | None
    quarantined: int
    parked: int
    parked_bytes: int
    consumed: int
    discarded: int
    thinned: int
    learned: int
    kept_bytes: int
    retraining: Retraining
    requested: int
    served: int
    attempts: int
    retrains: Retrains
    last_retraining: LastRetraining | None
    drift: Drift
    incidents: IncidentTotals
    incident_rule: IncidentRule | None
    mute: Mute | None
    messages: MessageTotals
    champion_nonce: str = ""
    champion_sha256: str | None = None
    config_nonce: str = ""
    changed: int = 0
    decided: int = 0
    labelled: bool = False
    chosen: ChosenContext | None = None
    interrupted: int = 0

    @property
    def row_config(self) -> DetectorConfig:
        """The config for reading and learning rows, with the chosen context instead of `auto`.

        As long as no context is chosen, `auto` remains, and rows are kept as they were sent.
        """
        return resolved(self.config, self.chosen)

    @property
    def undecided(self) -> bool:
        """Whether the context of the detector is not chosen yet."""
        return self.row_config.context == "auto"

    def muted(self, now: float) -> bool:
        """Return whether the detector is muted at `now` (seconds since 1970)."""
        return self.mute is not None and now < self.mute.until

    @property
    def trained(self) -> bool:
        """Whether any version was made: its dimension and feature names are then fixed."""
        return self.last_version > 0

    @property
    def needed(self) -> int:
        """How many vectors are missing until a training is possible."""
        return max(0, self.least - self.buffered)

    @property
    def waiting(self) -> str | None:
        """In words how many rows wait in quarantine for a person, None if none wait."""
        if not self.quarantined:
            return None
        rows = "row waits" if self.quarantined == 1 else "rows wait"
        return f"{self.quarantined} {rows} for a person"

    @property
    def least(self) -> int:
        """The fewest vectors that a training needs.

        One vector that a person labelled is enough if there is a champion: its generator supplies
        the others.
        """
        return 1 if self.labelled and self.champion is not None else MIN_VECTORS

    @property
    def pointer(self) -> Pointer:
        """The pointer that an API process compares with the champion that it serves."""
        return Pointer(
            self.uid,
            self.champion,
            self.generation,
            self.config_revision,
            self.champion_nonce,
            self.config_nonce,
            self.champion_sha256,
            self.changed,
        )


def resolved(config: DetectorConfig, chosen: ChosenContext | None) -> DetectorConfig:
    """Return `config` with the chosen context instead of `auto`."""
    if config.context != "auto" or chosen is None:
        return config
    return replace(config, context=chosen.context)


def with_dimension(
    config: DetectorConfig, width: int | None, chosen: ChosenContext | None
) -> DetectorConfig:
    """Return `config` with its dimension, if it has none. A row has `width` numbers."""
    if width is None or config.dimension is not None:
        return config
    return replace(config, dimension=resolved(config, chosen).columns_in(width))


PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME = re.compile(PLAIN_NAME.pattern + r"(:[A-Za-z0-9._-]{1,64})?")


def template_of(name: str) -> str | None:
    """Return the template in the name `template:entity`, or None for any other name."""
    template, colon, _ = name.partition(":")
    return template if colon else None
