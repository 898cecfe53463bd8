"""Collects from the API what the page of an incident shows."""

import asyncio
from typing import NamedTuple

from service.api.incident_documents import Incident, Incidents
from service.api.page.detector import columns_of
from service.api.page.own_api import OwnApi
from service.api.page.time_range import TimeRange, around
from service.domain.attribution import Attribution, Cell
from service.domain.detector_config import parse
from service.domain.detector_status import DetectorStatus

_INCIDENTS, _ROWS, _COLUMNS, _PICTURES = 50, 25, 12, 5


class Bar(NamedTuple):
    """A leading feature of an incident, and the length of its bar in per cent of the longest."""

    feature: Attribution
    bar: int


class ShownRow(NamedTuple):
    """One of the worst rows, with its values in the shown columns."""

    at: str
    severity: float
    values: list[Cell]


class IncidentPage(NamedTuple):
    """The data of the page of an incident, all but the incident itself.

    `columns` are the shown columns of `dimension`, the leading ones first. `pictures` are the worst
    rows if the config has the `shape` of pictures.
    """

    features: list[Bar]
    rows: list[ShownRow]
    columns: list[str]
    dimension: int
    shape: tuple[int, int] | None
    pictures: list[list[Cell]]
    alike: list[Incident]
    period: TimeRange  # the incident, and the time before and after it


async def incident(api: OwnApi, name: str, shown: Incident) -> IncidentPage:
    """Return the data that the page of the incident `shown` needs."""
    path = f"/v1/detectors/{name}"
    listed, status = await asyncio.gather(
        api.get(Incidents, f"{path}/incidents", limit=_INCIDENTS), api.get(DetectorStatus, path)
    )
    leading = {part.feature for part in shown.features[:1]}
    others = listed.document.incidents if listed.document else []
    largest = max((abs(part.contribution) for part in shown.features), default=1.0) or 1.0
    detector_status = status.document
    config = parse(detector_status.config) if detector_status else None
    names = columns_of(config, detector_status.dimension) if config and detector_status else []
    first = {part.feature: place for place, part in enumerate(shown.features)}
    places = sorted(range(len(names)), key=lambda i: first.get(names[i], len(first)))[:_COLUMNS]
    rows = [(row, row.vector or []) for row in (shown.rows or [])[:_ROWS]]
    shape = config.shape if config else None
    return IncidentPage(
        features=[
            Bar(part, round(100 * abs(part.contribution) / largest)) for part in shown.features
        ],
        rows=[
            ShownRow(row.at, row.severity, [vector[i] for i in places if i < len(vector)])
            for row, vector in rows
        ],
        columns=[names[i] for i in places],
        dimension=len(names),
        shape=shape,
        pictures=[vector for _, vector in rows if vector][:_PICTURES] if shape else [],
        alike=[
            other
            for other in others
            if other.id != shown.id and leading & {part.feature for part in other.features[:1]}
        ][:10],
        period=around(shown.start, shown.end),
    )
