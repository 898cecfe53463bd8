"""What the page of a detector shows, in the order in which it is read."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from service.api.documents import Quarantine, QuarantinedRows, Sample
from service.api.incident_documents import (
    Generations,
    History,
    HistoryBucket,
    Incident,
    Incidents,
    Labels,
)
from service.api.page import words
from service.api.page.own_api import Answer, OwnApi
from service.api.page.time_range import DEFAULT, SPANS, TimeRange
from service.domain.attribution import Cell
from service.domain.detector_config import DetectorConfig, asked_rate, parse
from service.domain.detector_status import DetectorStatus
from service.domain.history import POINTS
from service.domain.quarantine_entry import QuarantineEntry
from service.domain.version_record import CalibrationRecord

_POINTS = 600  # of the chart
_INCIDENTS, _VERSIONS, _ROWS, _DRAWN = 50, 20, 25, 5


class ListedGate(msgspec.Struct):
    """Whether the gate passed a version, and why not."""

    passed: bool = False
    reasons: tuple[str, ...] = ()


class ListedVersion(msgspec.Struct):
    """What the page shows of a version's record; records of earlier releases say less."""

    version: int
    state: str
    created_at: str | None = None
    n_prev: int | None = None
    n_new: int | None = None
    calibration: CalibrationRecord | None = None
    gate: ListedGate | None = None


class ListedVersions(msgspec.Struct):
    """The answer of `/v1/detectors/{name}/versions`."""

    versions: tuple[ListedVersion, ...]


class TypicalVector(NamedTuple):
    """The typical vector of a regime, as far as it stands out, by feature."""

    regime: int
    vector: dict[str, float]


class HeldBack(NamedTuple):
    """What is in quarantine, with its first rows where it has some."""

    entry: QuarantineEntry
    rows: list[list[Cell]]


class DetectorPage(NamedTuple):
    """What `/detectors/{name}` shows; `chart` is what its script draws, a list a column."""

    headline: str
    history: Answer[History]
    latest: TimeRange | None  # of the latest rows, where the range asked for has none
    incidents: Answer[Incidents]
    faults: list[Incident]
    versions: Answer[ListedVersions]
    records: list[ListedVersion]
    moves: Answer[Generations]
    quarantine: Answer[Quarantine]
    held_back: list[HeldBack]
    labels: Answer[Labels]
    memory: Answer[Sample]
    typical: list[TypicalVector]
    columns: list[str]
    words: list[str]  # those of them that are categories
    example: str
    asked_rate: float | None
    chart: dict[str, object]


async def detector(
    api: OwnApi, name: str, status: DetectorStatus, asked: TimeRange
) -> DetectorPage:
    """Return what `/detectors/{name}` shows beside its `status`."""
    path, champion, config = f"/v1/detectors/{name}", status.champion, parse(status.config)
    (history, incidents), (versions, moves, memory), (quarantine, labels) = await asyncio.gather(
        asyncio.gather(
            api.get(History, f"{path}/history", **asked.query, points=_POINTS),
            api.get(Incidents, f"{path}/incidents", **asked.query, limit=_INCIDENTS),
        ),
        asyncio.gather(
            api.get(ListedVersions, f"{path}/versions"),
            api.get(Generations, f"{path}/generations", limit=_VERSIONS),
            _drawn(api, path, champion),
        ),
        asyncio.gather(
            api.get(Quarantine, f"{path}/quarantine"),
            api.get(Labels, f"{path}/labels", limit=_ROWS),
        ),
    )
    faults = incidents.document.incidents if incidents.document else []
    buckets = history.document.buckets if history.document else []
    return DetectorPage(
        headline=headline(status, faults, buckets),
        history=history,
        latest=None if buckets else await _latest(api, path, asked),
        incidents=incidents,
        faults=sorted(faults, key=lambda one: one.state != "open"),
        versions=versions,
        records=_champion_first(versions, champion),
        moves=moves,
        quarantine=quarantine,
        held_back=await _with_rows(api, path, quarantine),
        labels=labels,
        memory=memory,
        typical=[
            TypicalVector(one.regime, {told.feature: told.value for told in one.typical})
            for one in status.regimes
        ],
        columns=columns_of(config, status.dimension),
        words=sorted(config.words),
        example=_example(config, memory),
        asked_rate=asked_rate(config.threshold),
        chart=_chart(buckets, faults, asked),
    )


async def _latest(api: OwnApi, path: str, asked: TimeRange) -> TimeRange | None:
    """Return the day up to the latest row before the range's end; None where no row is kept."""
    kept = TimeRange(asked.end - SPANS["90d"], asked.end, None)
    history = await api.get(History, f"{path}/history", **kept.query, points=POINTS)
    if history.document is None or not history.document.buckets:
        return None
    began = datetime.fromisoformat(history.document.buckets[-1].at).timestamp()
    last = began + kept.seconds / POINTS
    return TimeRange(last - SPANS[DEFAULT], last, None)


async def _drawn(api: OwnApi, path: str, champion: int | None) -> Answer[Sample]:
    if champion is None:
        return Answer(404, None, "There is no version.")
    return await api.get(Sample, f"{path}/versions/{champion}/sample", n=_DRAWN)


def _chart(
    buckets: Sequence[HistoryBucket], faults: Sequence[Incident], asked: TimeRange
) -> dict[str, object]:
    return {
        "at": [one.at for one in buckets],
        "max": [one.severity_max for one in buckets],
        "p99": [one.severity_p99 for one in buckets],
        "rows": [one.rows for one in buckets],
        "alarms": [one.alarms for one in buckets],
        "generation": [one.generation for one in buckets],
        "incidents": [[one.start, one.end] for one in faults],
        **asked.query,
    }


def _example(config: DetectorConfig, memory: Answer[Sample]) -> str:
    """Return a vector to begin with: the first that was drawn; '' where there is none."""
    if memory.document is None or config.context is not None:
        return ""
    return ", ".join(words.number(value, 4) for value in memory.document.vectors[0])


def headline(
    status: DetectorStatus, faults: Sequence[Incident], buckets: Sequence[HistoryBucket]
) -> str:
    """Return in one sentence whether the detector is well, and since when."""
    if status.champion is None:
        return (
            f"It has not learned yet: {status.buffered} vectors are buffered, "
            f"{status.needed} more are needed."
        )
    open_ones = [one for one in faults if one.state == "open" and one.verdict is None]
    if open_ones:
        since = words.moment(min(one.start for one in open_ones))
        some = "One incident is" if len(open_ones) == 1 else f"{len(open_ones)} incidents are"
        return f"{some} open since {since} UTC."
    if status.drift.state in {"degraded", "new_regime"}:
        return f"The input drifts: {status.drift.state.replace('_', ' ')}."
    if not buckets:
        return "It is ready. No row was scored in this time range."
    rows, alarms = sum(one.rows for one in buckets), sum(one.alarms for one in buckets)
    return f"It is well: {alarms:,} of {rows:,} rows alarmed, no incident is open."


def _champion_first(versions: Answer[ListedVersions], champion: int | None) -> list[ListedVersion]:
    records = versions.document.versions if versions.document else ()
    return sorted(records, key=lambda one: (one.version != champion, -one.version))[:_VERSIONS]


async def _with_rows(api: OwnApi, path: str, quarantine: Answer[Quarantine]) -> list[HeldBack]:
    """Return what is held back and not decided, with the first rows of each entry."""
    entries = quarantine.document.quarantine if quarantine.document else []
    waiting = [one for one in entries if not one.decision][:_ROWS]
    return await asyncio.gather(*(_held_back(api, path, one) for one in waiting))


async def _held_back(api: OwnApi, path: str, entry: QuarantineEntry) -> HeldBack:
    if entry.kind != "rows":
        return HeldBack(entry, [])
    found = await api.get(QuarantinedRows, f"{path}/quarantine/{entry.id}")
    return HeldBack(entry, found.document.vectors[:5] if found.document else [])


def columns_of(config: DetectorConfig, dimension: int | None) -> list[str]:
    """Return the names of the detector's columns, numbers where it has none."""
    return list(config.names or map(str, range(dimension or 0)))
