"""Incidents: list them, show one, and record a person's decision."""

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api import incident_documents as documents
from service.api import openapi, request_bodies
from service.api.guard import caller, needs
from service.api.incident_decisions import decide, deciding
from service.api.parts import Parts, parts
from service.api.responses import answer
from service.api.routes.parameters import Name
from service.api.routes.queries import PAGE, next_page, page, pages_of, time_range, whole_number
from service.api.status import existing, show_own_labels
from service.domain.incident_document import document, row_document
from service.domain.scope import Scope
from service.domain.words import decode
from service.problems import BufferFull, Unprocessable, no_such
from service.store.incidents import IncidentWithDecision

router = APIRouter(prefix="/v1/detectors/{name}/incidents", tags=["incidents"])

_EFFECT = (
    "34 kept rows are labelled normal and buffered for the next retraining. `retrain` starts one "
    "now, however few rows they are. From now on rows with these leading features page nobody: "
    "speed from 2783 to 2797. Real anomalies among such rows will be missed."
)
_RANGE = [
    openapi.query("from", "The earliest time (RFC 3339, or seconds since 1970).", type="string"),
    openapi.query("to", "Only before this time.", type="string"),
]


@router.get(
    "",
    summary="List the incidents",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Newest first.", documents.Incidents)
    | openapi.problems(404, 422, 503),
    openapi_extra={
        "parameters": [
            openapi.query("state", "Only these.", type="string", enum=["open", "closed"]),
            *_RANGE,
            *pages_of("incidents"),
        ]
    },
)
async def index(request: Request, name: Name) -> Response:
    """Return the incidents that overlap the time range."""
    app = parts(request)
    period, limit = time_range(request), whole_number(request, "limit", PAGE)
    state = request.query_params.get("state")
    if state not in {None, "open", "closed"}:
        raise Unprocessable('`state` in the query must be "open" or "closed".')
    await existing(app, name)
    incidents = [
        stored
        for stored in await app.stores.incidents.all(name)
        if state in {None, stored.incident.state}
        and period.holds(stored.incident.start, stored.incident.end)
    ]
    shown, last = page(incidents, lambda entry: entry.incident.id, request, limit, "no incident")
    return answer({"incidents": [document(*entry) for entry in shown]} | next_page(last))


@router.get(
    "/{incident}",
    summary="Show an incident with its worst rows",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(
        200,
        "Worst row first.",
        documents.Incident,
        openapi.EXAMPLES["Incident"] | {"rows": [openapi.EXAMPLES["Row"]]},
    )
    | openapi.problems(404, 503),
)
async def get(request: Request, name: Name, incident: str) -> Response:
    """Return the incident with at most 100 of its rows, the most severe first."""
    app = parts(request)
    config = (await existing(app, name)).row_config
    stored = await stored_incident(app, name, incident)
    rows = (await app.stores.incidents.rows(name, [incident]))[incident]
    shown: list[dict[str, Any]] = [dict(row_document(row)) for row in rows]
    if config.words:
        words = await app.stores.words.all(name)
        decode([row["vector"] for row in shown if row["vector"]], config, words)
    return answer(document(*stored) | {"rows": shown})


@router.post(
    "/{incident}",
    summary="Dismiss or confirm an incident, or withdraw the decision",
    dependencies=[needs(Scope.LABEL)],
    responses=openapi.answers(
        200, "Decided.", documents.Incident, openapi.EXAMPLES["Incident"] | {"effect": _EFFECT}
    )
    | openapi.problems(404, 409, 413, 415, 422, 429, 503, instead=BufferFull),
    openapi_extra=openapi.json_body(
        request_bodies.DecideIncident, {"decision": "dismiss", "why": "a wash"}
    ),
)
async def post(request: Request, name: Name, incident: str) -> Response:
    """Decide the incident. The decision labels its kept rows. `effect` says what follows."""
    app = parts(request)
    app.check_writable()
    body = await request_bodies.read(request, request_bodies.DecideIncident)
    detector = await existing(app, name)
    async with deciding(app, name):
        stored = await stored_incident(app, name, incident)
        decided = await decide(app, detector, stored, body, caller(request))
    await show_own_labels(app, detector)
    effect = decided.decision.effect if decided.decision else ""
    return answer(document(*decided) | {"effect": effect})


async def stored_incident(app: Parts, name: str, incident: str) -> IncidentWithDecision:
    """Return the incident. Raises Unknown if it is not stored."""
    stored = None
    if len(incident) <= 64 and incident.isascii():
        stored = await app.stores.incidents.get(name, incident)
    if stored is None:
        raise no_such("incident", ".../incidents")
    return stored
