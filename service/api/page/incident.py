"""Collects from the API what the page of an incident shows."""

import asyncio
from typing import NamedTuple

from service.api.incident_documents import (
    Incident,
    Incidents,
    Row,
)
from service.api.page.detector import columns_of
from service.api.page.own_api import OwnApi
from service.domain.attribution import Attribution
from service.domain.detector_config import parse
from service.domain.detector_status import DetectorStatus

_INCIDENTS, _ROWS = 50, 25


class Bar(NamedTuple):
    """A leading feature of an incident, and the length of its bar in per cent of the longest."""

    feature: Attribution
    bar: int


class IncidentPage(NamedTuple):
    """The data of the page of an incident, all but the incident itself."""

    features: list[Bar]
    rows: list[Row]
    columns: list[str]
    alike: list[Incident]


async def incident(api: OwnApi, name: str, shown: Incident) -> IncidentPage:
    """Return the data that the page of the incident `shown` needs."""
    path = f"/v1/detectors/{name}"
    listed, status = await asyncio.gather(
        api.get(Incidents, f"{path}/incidents", limit=_INCIDENTS),
        api.get(DetectorStatus, path),
    )
    leading = {part.feature for part in shown.features[:1]}
    others = listed.document.incidents if listed.document else []
    largest = max((abs(part.contribution) for part in shown.features), default=1.0) or 1.0
    detector_status = status.document
    return IncidentPage(
        features=[
            Bar(part, round(100 * abs(part.contribution) / largest)) for part in shown.features
        ],
        rows=(shown.rows or [])[:_ROWS],
        columns=columns_of(parse(detector_status.config), detector_status.dimension)
        if detector_status
        else [],
        alike=[
            other
            for other in others
            if other.id != shown.id and leading & {part.feature for part in other.features[:1]}
        ][:10],
    )
