"""Mute: for a time a detector pages nobody and learns nothing by itself; scoring goes on."""

from fastapi import APIRouter, Request, Response

from service.api import incident_documents as documents
from service.api import openapi, request_bodies
from service.api.guard import caller, needs
from service.api.parts import parts
from service.api.responses import answer
from service.api.routes.parameters import Name
from service.api.status import show_own_change
from service.domain.detector_status import MuteStatus
from service.domain.scope import Scope
from service.timestamps import rfc3339

router = APIRouter(prefix="/v1/detectors/{name}/mute", tags=["incidents"])


@router.post(
    "",
    summary="Mute a detector for a while",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(200, "The end of the mute.", documents.MuteAnswer)
    | openapi.problems(404, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(
        request_bodies.Mute, {"seconds": 7200, "why": "planned service"}
    ),
)
async def post(request: Request, name: Name) -> Response:
    """Mute the detector: it pages nobody and learns nothing by itself until the time is over.

    Scoring and history go on.
    """
    app = parts(request)
    app.check_writable()
    body = await request_bodies.read(request, request_bodies.Mute)
    who = caller(request).who
    until = await app.stores.detectors.mute(name, body.seconds, body.why, who)
    await show_own_change(app, name)
    return answer(documents.MuteAnswer(MuteStatus(rfc3339(until), body.why, who)))


@router.delete(
    "",
    summary="End a mute",
    dependencies=[needs(Scope.ADMIN)],
    status_code=204,
    response_class=Response,
    responses=openapi.problems(404, 503),
)
async def delete(request: Request, name: Name) -> Response:
    """End the mute: the detector pages and learns again. Without a mute nothing changes."""
    app = parts(request)
    app.check_writable()
    await app.stores.detectors.mute(name, 0.0, "", caller(request).who)
    await show_own_change(app, name)
    return Response(status_code=204)
