"""Collects from the API what the overview shows."""

import asyncio
from typing import NamedTuple

import msgspec

from service.api.incident_documents import (
    Attention,
    AttentionItem,
    Generations,
    History,
    ServiceAnswer,
)
from service.api.page import formats
from service.api.page.own_api import Answer, OwnApi
from service.api.page.time_range import TimeRange
from service.domain.asked_rate import asked_rate
from service.domain.detector_config import parse
from service.domain.detector_status import BrokenStatus, DetectorStatus

SHOWN = 20  # detectors in the table; the others are only named
ITEMS = 100  # things that need a person, the worst; the others are only counted
_SPARKS = 48  # points of the small chart of a detector
_BAD = {"degraded": 0, "new_regime": 1, "known_regime": 2}


class ListedDetectors(msgspec.Struct):
    """The answer of `/v1/detectors`. Each item is a `DetectorStatus` or a `BrokenStatus`."""

    detectors: tuple[msgspec.Raw, ...]


class Link(NamedTuple):
    """One thing that needs a person, and the path of the page that shows it."""

    item: AttentionItem
    page: str


class DetectorRow(NamedTuple):
    """A detector on the overview.

    `spark` has the lines of its severity chart. `asked` is the share of alarms that its threshold
    asks for, `held` the share in the time range. `age` is the seconds since its champion changed.
    """

    status: DetectorStatus
    spark: list[str]
    rows: int
    asked: float | None
    held: float | None
    age: float | None


class Overview(NamedTuple):
    """The data of the page `/`.

    `more` counts the things that need a person beyond `items`. `others` are the names of the
    detectors that are not in `rows`.
    """

    attention: Answer[Attention]
    items: list[Link]
    more: int
    detectors: Answer[ListedDetectors]
    rows: list[DetectorRow]
    others: list[str]
    broken: list[BrokenStatus]
    service: Answer[ServiceAnswer]


async def overview(api: OwnApi, period: TimeRange, now: float) -> Overview:
    """Return what needs a person, the detectors worst first, and the state of the service."""
    detectors, attention, service = await asyncio.gather(
        api.get(ListedDetectors, "/v1/detectors"),
        api.get(Attention, "/v1/attention"),
        api.get(ServiceAnswer, "/v1/service"),
    )
    waiting = attention.document.items if attention.document else []
    listed = detectors.document.detectors if detectors.document else ()
    read = [status_of(entry) for entry in listed]
    statuses = [status for status in read if isinstance(status, DetectorStatus)]
    order: dict[str | None, int] = {}
    for place, item in enumerate(waiting):
        order.setdefault(item.detector, place)  # the place of its worst item
    statuses.sort(
        key=lambda status: (
            order.get(status.name, len(waiting)), _BAD.get(status.drift.state, 3), status.name,
        ),
    )  # fmt: skip
    rows = await asyncio.gather(*(_row(api, status, period, now) for status in statuses[:SHOWN]))
    return Overview(
        attention=attention,
        items=[Link(item, _page_of(item)) for item in waiting[:ITEMS]],
        more=max(0, len(waiting) - ITEMS),
        detectors=detectors,
        rows=rows,
        others=[status.name for status in statuses[SHOWN:]],
        broken=[status for status in read if isinstance(status, BrokenStatus)],
        service=service,
    )


def status_of(text: msgspec.Raw) -> DetectorStatus | BrokenStatus:
    """Parse one status of the API's answer."""
    try:
        return msgspec.json.decode(text, type=DetectorStatus)
    except msgspec.ValidationError:
        return msgspec.json.decode(text, type=BrokenStatus)


def _page_of(item: AttentionItem) -> str:
    """Return the path of the item's page, which is its path in the API without `/v1`."""
    path = item.path.removeprefix("/v1")
    if path in {"/service", ""}:
        return "/"
    head, _, last = path.rpartition("/")
    return f"{head}#{last}" if last in {"drift", "incidents", "quarantine"} else path


async def _row(api: OwnApi, status: DetectorStatus, period: TimeRange, now: float) -> DetectorRow:
    path = f"/v1/detectors/{status.name}"
    history, moves = await asyncio.gather(
        api.get(History, f"{path}/history", **period.query, points=_SPARKS),
        api.get(Generations, f"{path}/generations", limit=1),
    )
    buckets = history.document.buckets if history.document else []
    moved = moves.document.generations if moves.document else []
    rows = sum(bucket.rows for bucket in buckets)
    return DetectorRow(
        status=status,
        spark=formats.sparkline(
            [period.place(bucket.at) for bucket in buckets],
            [bucket.severity_p99 for bucket in buckets],
            1 / _SPARKS,
        ),
        rows=rows,
        asked=asked_rate(parse(status.config).threshold),
        held=sum(bucket.alarms for bucket in buckets) / rows if rows else None,
        age=formats.seconds_since(moved[0].at, now) if moved else None,
    )
