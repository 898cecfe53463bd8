"""Collects from the API what the page of a detector shows."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

import msgspec

from models.parts.lineage import ComparedAlarms
from service.api.documents import Quarantine, QuarantinedRows, Sample, TypicalVector
from service.api.incident_documents import (
    Generations,
    History,
    HistoryBucket,
    Incident,
    Incidents,
    Label,
    Labels,
)
from service.api.page import formats
from service.api.page.own_api import Answer, OwnApi
from service.api.page.time_range import DEFAULT, SPANS, TimeRange, around
from service.counted import counted
from service.domain.asked_rate import asked_rate
from service.domain.attention import DRIFT_NEEDS, drift_kind
from service.domain.attribution import Cell
from service.domain.detector_config import DetectorConfig, parse
from service.domain.detector_status import DetectorStatus
from service.domain.history import HOURS_KEPT, POINTS
from service.domain.quarantine_entry import QuarantineEntry
from service.domain.version_record import CalibrationRecord

_POINTS = 600  # most points of the chart
_INCIDENTS, _VERSIONS, _ROWS, _DRAWN = 50, 20, 25, 5
# The headline says that many rows alarm if more than _FEW_ALARMS do, and more than
# _TIMES_ASKED times the share that the threshold asks for.
_FEW_ALARMS, _TIMES_ASKED = 10, 5.0


class ListedEvidence(msgspec.Struct, frozen=True):
    """The rates at which a candidate and its champion alarmed on replayed old normals."""

    old: ComparedAlarms | None = None


class ListedGate(msgspec.Struct):
    """Whether a version passed the gate, and the reasons if it did not."""

    passed: bool = False
    reasons: tuple[str, ...] = ()
    evidence: ListedEvidence = ListedEvidence()

    @property
    def forgetting(self) -> float | None:
        """By how much more replayed old normals alarm than before; None for a first version."""
        old = self.evidence.old
        return None if old is None else old.more


class ListedVersion(msgspec.Struct):
    """The fields of a version's record that the page shows. Older records lack some of them."""

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


class HeldBack(NamedTuple):
    """An entry of the quarantine, with its first rows if it is of kind `rows`."""

    entry: QuarantineEntry
    rows: list[list[Cell]]


class EarlierIncidents(NamedTuple):
    """The latest incidents before a time range. There may be `more` before them."""

    incidents: list[Incident]
    more: bool
    period: TimeRange  # shows all of them


class DetectorPage(NamedTuple):
    """The data of the page `/detectors/{name}`. `chart` has one list for each column to draw."""

    headline: str
    history: Answer[History]
    before_history: bool  # whether the requested range begins before the history
    latest: TimeRange | None  # the day of the latest rows if the requested range has none
    incidents: Answer[Incidents]
    earlier: EarlierIncidents | None  # given if the requested range has no incident
    listed: list[Incident]
    unlisted: bool  # whether there are more incidents than listed
    versions: Answer[ListedVersions]
    records: list[ListedVersion]
    moves: Answer[Generations]
    quarantine: Answer[Quarantine]
    held_back: list[HeldBack]
    labels: Answer[Labels]
    label_runs: list[tuple[Label, int]]
    memory: Answer[Sample]
    typical: list[TypicalVector]
    columns: list[str]
    features: list[str]  # of a version: the columns, and what a context derives of them
    words: list[str]  # the columns that are categories
    example: str
    asked_rate: float | None
    chart: dict[str, object]


async def detector(
    api: OwnApi, name: str, status: DetectorStatus, period: TimeRange
) -> DetectorPage:
    """Return the data that the page shows, all but the `status` itself."""
    path, champion, config = f"/v1/detectors/{name}", status.champion, parse(status.config)
    (
        (history, incidents, unfinished),
        (versions, moves, memory),
        (quarantine, labels),
    ) = await asyncio.gather(
        asyncio.gather(
            api.get(History, f"{path}/history", **period.query, points=_POINTS),
            api.get(Incidents, f"{path}/incidents", **period.query, limit=_INCIDENTS),
            api.get(Incidents, f"{path}/incidents", state="open", limit=_INCIDENTS),
        ),
        asyncio.gather(
            api.get(ListedVersions, f"{path}/versions"),
            api.get(Generations, f"{path}/generations", limit=_VERSIONS),
            _drawn_rows(api, path, champion),
        ),
        asyncio.gather(
            api.get(Quarantine, f"{path}/quarantine"),
            api.get(Labels, f"{path}/labels", limit=_ROWS),
        ),
    )
    listed = _open_first(unfinished, incidents)
    buckets = history.document.buckets if history.document else []
    return DetectorPage(
        headline=headline(status, listed, buckets),
        history=history,
        before_history=period.start < time.time() - HOURS_KEPT,
        latest=None if buckets else await _latest_day(api, path, period),
        incidents=incidents,
        earlier=await _earlier(api, path, period, incidents),
        listed=listed,
        unlisted=_has_more(unfinished) or _has_more(incidents),
        versions=versions,
        records=_champion_first(versions, champion),
        moves=moves,
        quarantine=quarantine,
        held_back=await _with_rows(api, path, quarantine),
        labels=labels,
        label_runs=_runs_of_labels(labels.document.labels if labels.document else []),
        memory=memory,
        typical=memory.document.typical if memory.document else [],
        columns=columns_of(config, status.dimension),
        features=memory.document.features if memory.document else [],
        words=sorted(config.words),
        example=_example_row(config, memory),
        asked_rate=asked_rate(config.threshold),
        chart=_chart(buckets, listed, period),
    )


async def _latest_day(api: OwnApi, path: str, period: TimeRange) -> TimeRange | None:
    """Return the day that ends with the latest row before the end of the range `period`.

    None if the history has no such row.
    """
    kept = TimeRange(period.end - SPANS["90d"], period.end, None)
    history = await api.get(History, f"{path}/history", **kept.query, points=POINTS)
    if history.document is None or not history.document.buckets:
        return None
    began = datetime.fromisoformat(history.document.buckets[-1].at).timestamp()
    last = began + kept.seconds / POINTS
    return TimeRange(last - SPANS[DEFAULT], last, None)


async def _earlier(
    api: OwnApi, path: str, period: TimeRange, of_period: Answer[Incidents]
) -> EarlierIncidents | None:
    """Return the latest incidents before the range `period` if this range has none.

    None if the range has incidents, if it is unknown whether it has, or if there are no earlier.
    """
    if of_period.document is None or of_period.document.incidents:
        return None
    query = {"to": period.query["from"], "limit": _INCIDENTS}
    answer = await api.get(Incidents, f"{path}/incidents", **query)
    if answer.document is None or not answer.document.incidents:
        return None
    incidents = answer.document.incidents
    starts, ends = (one.start for one in incidents), (one.end for one in incidents)
    return EarlierIncidents(incidents, bool(answer.document.next), around(min(starts), max(ends)))


async def _drawn_rows(api: OwnApi, path: str, champion: int | None) -> Answer[Sample]:
    if champion is None:
        return Answer(404, None, "There is no version.")
    return await api.get(Sample, f"{path}/versions/{champion}/sample", n=_DRAWN)


def _chart(
    buckets: Sequence[HistoryBucket], listed: Sequence[Incident], period: TimeRange
) -> dict[str, object]:
    return {
        "at": [bucket.at for bucket in buckets],
        "max": [bucket.severity_max for bucket in buckets],
        "p99": [bucket.severity_p99 for bucket in buckets],
        "rows": [bucket.rows for bucket in buckets],
        "alarms": [bucket.alarms for bucket in buckets],
        "generation": [bucket.generation for bucket in buckets],
        "incidents": [[incident.start, incident.end] for incident in listed],
        **period.query,
    }


def _example_row(config: DetectorConfig, memory: Answer[Sample]) -> str:
    """Return an example for the form: the first drawn vector, '' if there is none."""
    if memory.document is None or config.context is not None:
        return ""
    return formats.vector(memory.document.vectors[0])


def _open_first(*answers: Answer[Incidents]) -> list[Incident]:
    """Return the incidents of all answers, each once, the open ones first.

    Open incidents are shown in every time range, since a client's clock may be wrong.
    """
    incidents = [
        incident for answer in answers if answer.document for incident in answer.document.incidents
    ]
    distinct = {incident.id: incident for incident in incidents}
    return sorted(distinct.values(), key=lambda incident: incident.state != "open")


def _has_more(answer: Answer[Incidents]) -> bool:
    """Return whether a further page of incidents follows."""
    return answer.document is not None and bool(answer.document.next)


def headline(
    status: DetectorStatus, listed: Sequence[Incident], buckets: Sequence[HistoryBucket]
) -> str:
    """Return in one sentence whether the detector is well, and since when."""
    if status.champion is None:
        return (
            f"The detector has not learned yet. Buffered: {counted(status.buffered, 'vector')}; "
            f"missing: {status.needed:,}."
        )
    for verdict in (None, "confirmed", "dismissed"):
        open_ones = [
            incident
            for incident in listed
            if (incident.state, incident.verdict) == ("open", verdict)
        ]
        if open_ones:
            since = formats.moment(min(incident.start for incident in open_ones))
            kind = f"{verdict} incident" if verdict else "incident"
            # The status counts those that are not listed, too.
            number = max(len(open_ones), 0 if verdict else status.incidents.open)
            subject = f"One {kind} is" if number == 1 else f"{number:,} {kind}s are"
            return f"{subject} open since {since} UTC."
    if needed := drift_kind(status.drift):
        sentence = DRIFT_NEEDS[needed]
        return f"{sentence[0].upper()}{sentence[1:]}."
    if not buckets:
        return "The detector is ready. No row was scored in this time range."
    rows, alarms = sum(bucket.rows for bucket in buckets), sum(bucket.alarms for bucket in buckets)
    rate = asked_rate(parse(status.config).threshold)
    if rate is not None and alarms > max(_FEW_ALARMS, _TIMES_ASKED * rate * rows):
        share = formats.percent(rate)
        many = f"Many rows alarm: {alarms:,} of {rows:,} in this time range."
        return f"{many} The threshold asks for {share}."
    return f"All is normal: {alarms:,} of {counted(rows, 'row')} alarmed, and no incident is open."


def _runs_of_labels(labels: Sequence[Label]) -> list[tuple[Label, int]]:
    """Return the runs of equal labels of one sender in one minute: first label, and length."""
    runs = groupby(labels, lambda label: (formats.moment(label.at), label.label, label.sender))
    return [(run[0], len(run)) for run in (list(rows) for _, rows in runs)]


def _champion_first(versions: Answer[ListedVersions], champion: int | None) -> list[ListedVersion]:
    records = versions.document.versions if versions.document else ()
    return sorted(records, key=lambda record: (record.version != champion, -record.version))[
        :_VERSIONS
    ]


async def _with_rows(api: OwnApi, path: str, quarantine: Answer[Quarantine]) -> list[HeldBack]:
    """Return the quarantine entries without a decision, each with its first rows."""
    entries = quarantine.document.quarantine if quarantine.document else []
    waiting = [entry for entry in entries if not entry.decision][:_ROWS]
    return await asyncio.gather(*(_held_back(api, path, entry) for entry in waiting))


async def _held_back(api: OwnApi, path: str, entry: QuarantineEntry) -> HeldBack:
    if entry.kind != "rows":
        return HeldBack(entry, [])
    rows = await api.get(QuarantinedRows, f"{path}/quarantine/{entry.id}")
    return HeldBack(entry, rows.document.vectors[:5] if rows.document else [])


def columns_of(config: DetectorConfig, dimension: int | None) -> list[str]:
    """Return the names of the detector's columns. Columns without names get their positions."""
    return list(config.names or map(str, range(dimension or 0)))
