"""Builds a detector from its hash in the store."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import orjson
from redis.asyncio import Redis

from service import log
from service.domain.chosen_context import ChosenContext, read_choice
from service.domain.detector import (
    NAME,
    Detector,
    IncidentTotals,
    LastRetraining,
    MessageTotals,
    Mute,
    Pointer,
    Retraining,
    Retrains,
    with_dimension,
)
from service.domain.detector_config import DetectorConfig, stored
from service.domain.drift_report import NO_DRIFT, Drift
from service.domain.incident import IncidentRule
from service.domain.provenance import position
from service.problems import Unprocessable
from service.store.connection import ask_each
from service.store.redis_keys import Keys
from service.store.schema import FIELDS
from service.timestamps import rfc3339

_log = log.get(__name__)
_left_out: dict[str, str] = {}  # detector to the reason that was logged


async def read(redis: Redis, names: Iterable[str]) -> dict[str, Detector]:
    """Read the detectors that exist and are readable in one round trip; raises StoreUnavailable."""
    wanted = [Keys(name) for name in names if NAME.fullmatch(name)]
    if not wanted:
        return {}
    pipe: Any = redis.pipeline(transaction=False)
    for keys in wanted:
        pipe.hgetall(keys.state)
        pipe.get(keys.drift)
    replies = await ask_each(redis, pipe)
    detectors: dict[str, Detector] = {}
    for keys, state, drift in zip(wanted, replies[::2], replies[1::2], strict=True):
        try:
            if state:
                report = drift if isinstance(drift, bytes) else None
                detectors[keys.name] = from_state(keys.name, state, report)
                _left_out.pop(keys.name, None)
        except Unprocessable as problem:
            # A later release may have written this state. The other detectors are still read.
            _report(keys.name, "its config is not valid here", problem.detail)
        except Exception as error:  # noqa: BLE001 - a damaged state must not hide the other detectors
            _report(keys.name, "its state cannot be read", repr(error))
    return detectors


def _report(name: str, what: str, why: str) -> None:
    """Log once that a detector is left out. It is read again every second."""
    if _left_out.get(name) != why:
        _left_out[name] = why
        _log.error(f"a detector is left out: {what}", detector=name, why=why)


# The fields of the state that are numbers of the same name in a Detector.
_NUMBERS = (
    "generation", "last_version", "buffered", "buffered_bytes", "quarantined", "parked",
    "parked_bytes", "consumed", "discarded", "thinned", "learned", "kept_bytes", "requested",
    "served", "attempts", "interrupted", "changed",
)  # fmt: skip


def from_state(name: str, state: Mapping[bytes, bytes], drift: bytes | None) -> Detector:
    """Build a Detector from its state hash (not empty) and its drift document."""
    text = {field.decode(): value.decode() for field, value in state.items()}

    def number(field: str) -> int:
        return int(text.get(field) or 0)

    dimension = number("dimension") or None
    config, chosen = _config(text["config"], dimension, text.get("context", ""))
    oldest = text.get("oldest", "").partition("-")[0]
    return Detector(
        name=name,
        uid=text["uid"],
        created_at=rfc3339(number("created") / 1000) or "",
        config=config,
        config_revision=number("revision"),
        dimension=dimension,
        champion=number("champion") or None,
        labelled=_comes_after(text.get("labelled", ""), text.get("cursor", "0-0")),
        buffer_oldest=int(oldest) / 1000 if oldest and number("buffered") else None,
        retraining=_retraining(text),
        retrains=Retrains(number("promoted"), number("rejected"), number("failed")),
        last_retraining=_last_retraining(text.get("last_retraining")),
        drift=msgspec.json.decode(drift, type=Drift) if drift else NO_DRIFT,
        incidents=IncidentTotals(
            open=number("incidents_open"),
            opened=number("incidents_opened"),
            closed=number("incidents_closed"),
            unreported=number("incidents_unreported"),
        ),
        decided=number("decisions"),
        incident_rule=msgspec.json.decode(
            text.get("incident_rule") or "null", type=IncidentRule | None
        ),
        mute=_mute(text),
        messages=MessageTotals(number("messages_sent"), number("messages_dropped")),
        champion_nonce=text.get("champion_nonce", ""),
        champion_sha256=text.get("champion_sha256") or None,
        config_nonce=text.get("config_nonce", ""),
        chosen=chosen,
        **{name: number(name) for name in _NUMBERS},
    )


POINTER = [
    FIELDS["STATE"][name]
    for name in (
        "uid", "champion", "generation", "revision", "champion_nonce", "config_nonce",
        "champion_sha256", "changed",
    )
]  # fmt: skip


def pointer(values: Sequence[bytes | None]) -> Pointer:
    """Build a Pointer from the fields `POINTER`; raises ValueError if a number is malformed."""
    uid, champion, generation, revision, champion_nonce, config_nonce, sha256, changed = (
        (value or b"").decode() for value in values
    )
    return Pointer(
        uid,
        int(champion or 0) or None,
        int(generation),
        int(revision),
        champion_nonce,
        config_nonce,
        sha256 or None,
        int(changed or 0),
    )


@lru_cache(maxsize=256)
def _config(
    text: str, dimension: int | None, context: str
) -> tuple[DetectorConfig, ChosenContext | None]:
    # Many detectors have the same config: it is parsed once, and all of them share it.
    chosen = read_choice(context) if context else None
    return with_dimension(stored(text), dimension, chosen), chosen


def _comes_after(entry: str, cursor: str) -> bool:
    """Return whether a stream entry comes after the cursor; False for the empty id ''."""
    return bool(entry) and position(entry) > position(cursor)


def _mute(text: Mapping[str, str]) -> Mute | None:
    until = int(text.get("muted_until") or 0) / 1000
    return Mute(until, text.get("muted_why", ""), text.get("muted_by", "")) if until else None


_WHILE_RUNNING = ("seconds_left", "loss_old", "loss_new")


def _retraining(text: Mapping[str, str]) -> Retraining:
    state = text.get("retraining", "idle")
    if state == "queued":
        return Retraining("queued", 0.0)
    if state == "running":
        values = (float(text[name]) if text.get(name) else None for name in _WHILE_RUNNING)
        return Retraining("running", float(text.get("progress") or 0), *values)
    return Retraining("idle", 0.0)


def _last_retraining(text: str | None) -> LastRetraining | None:
    if not text:
        return None
    last = orjson.loads(text)
    finished_at = rfc3339(last["finished_at"] / 1000)
    return msgspec.convert(last | {"finished_at": finished_at}, LastRetraining)
