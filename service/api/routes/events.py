"""Recorded anomalies: listed by time and by incident."""

from fastapi import APIRouter, Request, Response

from service.api import incident_documents as documents
from service.api import openapi
from service.api.guard import needs
from service.api.parts import parts
from service.api.responses import answer
from service.api.routes.parameters import Name
from service.api.routes.queries import PAGE, next_page, page, pages_of, time_range, whole_number
from service.api.status import existing
from service.domain.incident_document import incident_of
from service.domain.scope import Scope
from service.problems import no_such

router = APIRouter(prefix="/v1/detectors/{name}/events", tags=["review"])


@router.get(
    "",
    summary="List the latest anomalies",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Newest first.", documents.Events)
    | openapi.problems(404, 422, 503),
    openapi_extra={
        "parameters": [
            openapi.query("from", "The earliest time.", type="string"),
            openapi.query("to", "Only before this time.", type="string"),
            openapi.query("incident", "Only events of this incident.", type="string"),
            *pages_of("events"),
        ]
    },
)
async def index(request: Request, name: Name) -> Response:
    """Return the anomalies with vector, score, p-value, version and largest contributions."""
    app = parts(request)
    period, limit = time_range(request), whole_number(request, "limit", PAGE)
    incident_id = request.query_params.get("incident")
    await existing(app, name)
    incidents = [stored.incident for stored in await app.stores.incidents.all(name)]
    events = []
    for event in await app.stores.events.latest(name, limit=app.settings.events_kept):
        incident = incident_of(event, incidents)
        if period.holds(event.time) and incident_id in {None, incident}:
            events.append((event, incident))
    shown, last = page(events, lambda entry: entry[0].id, request, limit, "no event")
    return answer(
        {"events": [event.to_dict(incident) for event, incident in shown]} | next_page(last)
    )


@router.get(
    "/{event}",
    summary="Show an anomaly",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "The event.", documents.Event) | openapi.problems(404, 503),
)
async def get(request: Request, name: Name, event: str) -> Response:
    """Return one event. The answer is 404 if the event is no longer stored."""
    app = parts(request)
    await existing(app, name)
    recorded = (await app.stores.events.get(name, [event])).get(event)
    if recorded is None:
        raise no_such("event", ".../events")
    incidents = [stored.incident for stored in await app.stores.incidents.all(name)]
    return answer(recorded.to_dict(incident_of(recorded, incidents)))
