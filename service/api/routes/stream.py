"""Server-sent events for pages that stay open."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.api import openapi
from service.api.guard import caller, needs, still_allowed
from service.api.parts import parts
from service.domain.scope import Scope

router = APIRouter(prefix="/v1", tags=["service"])

_STREAM: openapi.Responses = {
    200: {
        "description": "Events of type `change` with the names of detectors whose state changed.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.get(
    "/stream",
    summary="Follow the detectors",
    dependencies=[needs(Scope.READ)],
    response_class=Response,
    responses=_STREAM | openapi.problems(429),
)
async def stream(request: Request) -> Response:
    """Send an event for each change of a detector that the API key covers.

    The stream ends when the client closes it, or when the API key is revoked or the
    session is over.
    """
    events = parts(request).changes.follow(caller(request), lambda: still_allowed(request))
    first = await anext(events)

    async def all_events() -> AsyncIterator[bytes]:
        yield first
        async for event in events:
            yield event

    return StreamingResponse(all_events(), media_type="text/event-stream")
