"""A detector as the store holds it at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import orjson

from models import MIN_VECTORS
from service.detector_config import DetectorConfig, parse
from service.store import rfc3339

NO_DRIFT: Mapping[str, Any] = {"state": "none"}


class Pointer(NamedTuple):
    """What an API process compares with what it serves."""

    uid: str
    champion: int | None
    generation: int
    config_revision: int


class Retraining(NamedTuple):
    """What the worker does with a detector; `progress` runs from 0 to 1."""

    state: Literal["idle", "queued", "running"]
    progress: float


@dataclass(frozen=True, slots=True)
class Detector:
    """One reading of a detector; counts are of vectors.

    `uid` names this incarnation: a detector deleted and made again has another. `requested` and
    `served` number the retrainings asked for by hand: number k is over once `served >= k`.
    `consumed` counts what any version learned, `learned` what the champion's lineage did, and
    `thinned` what was known too well to be kept.
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
    retrains: dict[str, int]
    last_retraining: dict[str, Any] | None
    drift: dict[str, Any]

    @property
    def trained(self) -> bool:
        """Whether any version was made: its dimension and feature names are then fixed."""
        return self.last_version > 0

    @property
    def needed(self) -> int:
        """How many vectors are missing until a training is possible."""
        return max(0, MIN_VECTORS - self.buffered)

    @property
    def pointer(self) -> Pointer:
        """Return what an API process compares with what it serves."""
        return Pointer(self.uid, self.champion, self.generation, self.config_revision)


def from_state(name: str, state: Mapping[bytes, bytes], drift: bytes | None) -> Detector:
    """Build a Detector from its state hash (not empty) and its drift document."""
    text = {field.decode(): value.decode() for field, value in state.items()}

    def number(field: str) -> int:
        return int(text.get(field) or 0)

    dimension = number("dimension") or None
    oldest = text.get("oldest", "").partition("-")[0]
    return Detector(
        name=name,
        uid=text["uid"],
        created_at=rfc3339(number("created") / 1000) or "",
        config=with_dimension(parse(text["config"]), dimension),
        config_revision=number("revision"),
        dimension=dimension,
        champion=number("champion") or None,
        generation=number("generation"),
        last_version=number("last_version"),
        buffered=number("buffered"),
        buffered_bytes=number("buffered_bytes"),
        buffer_oldest=int(oldest) / 1000 if oldest and number("buffered") else None,
        quarantined=number("quarantined"),
        parked=number("parked"),
        parked_bytes=number("parked_bytes"),
        consumed=number("consumed"),
        discarded=number("discarded"),
        thinned=number("thinned"),
        learned=number("learned"),
        kept_bytes=number("kept_bytes"),
        retraining=_retraining(text),
        requested=number("requested"),
        served=number("served"),
        attempts=number("attempts"),
        retrains={outcome: number(outcome) for outcome in ("promoted", "rejected", "failed")},
        last_retraining=_finished(text.get("last_retraining")),
        drift=orjson.loads(drift) if drift else dict(NO_DRIFT),
    )


def with_dimension(config: DetectorConfig, dimension: int | None) -> DetectorConfig:
    """Return `config` with the dimension that the data fixed, where it names none itself."""
    if dimension is None or config.dimension is not None:
        return config
    return replace(config, dimension=dimension)


def _retraining(text: Mapping[str, str]) -> Retraining:
    state = text.get("retraining", "idle")
    if state == "queued":
        return Retraining("queued", 0.0)
    if state == "running":
        return Retraining("running", float(text.get("progress") or 0))
    return Retraining("idle", 0.0)


def _finished(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    last: dict[str, Any] = orjson.loads(text)
    last["finished_at"] = rfc3339(last["finished_at"] / 1000)
    return last
