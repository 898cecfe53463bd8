"""The route that takes normal batches."""

import asyncio
from functools import partial

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi
from service.api.guard import caller, needs
from service.api.parts import parts
from service.api.request_bodies import NormalBody
from service.api.responses import answer
from service.api.routes.parameters import Name, idempotency_key
from service.api.routes.queries import flag
from service.domain.scope import Scope
from service.domain.trace import trace_id
from service.problems import BufferFull, TooLarge
from service.scoring import vectors
from service.scoring.cost import fits_inline, inline_bounds
from service.scoring.request import parse_query
from service.scoring.request_rows import normal_rows, not_learned

router = APIRouter(prefix="/v1/detectors/{name}", tags=["vectors"])


@router.post(
    "/normal",
    summary="Send vectors that are vouched for as normal",
    dependencies=[needs(Scope.INGEST)],
    status_code=202,
    responses=openapi.answers(202, "Stored durably.", documents.NormalAnswer)
    | openapi.problems(400, 404, 409, 413, 415, 422, 429, 503, instead=BufferFull),
    openapi_extra=openapi.rows_body(
        NormalBody,
        openapi.header(
            "Idempotency-Key",
            "1 to 255 visible ASCII characters. A retry with the same key within 24 hours "
            "stores nothing twice.",
            "2026-11-21T12:00:00Z/pump-7",
        ),
        openapi.query(
            "vouch", "A person vouches for these rows, also for rows that alarm.", type="boolean"
        ),
    ),
)
async def normal(request: Request, name: Name) -> Response:
    """Store the batch in the buffer. The answer comes once the store has written it durably.

    The first normal batch of an entity makes the entity's detector.
    """
    app = parts(request)
    key = idempotency_key(request.headers.get("idempotency-key"))
    kind = vectors.media_type(request.headers.get("content-type"))
    roles = parse_query(request.url.query).roles
    config = await app.ingest.config(name)
    body = await request.body()
    at_once = fits_inline(kind, len(body), inline_bounds(config.dimension or 1))
    read = partial(normal_rows, kind, body, config, roles, config.rules)
    rows = read() if at_once else await asyncio.to_thread(read)
    X, settings = rows.model.X, app.settings
    if X.nbytes > settings.buffer_max_bytes or len(X) > settings.buffer_max_vectors:
        raise TooLarge("The batch is larger than the buffer. Send it in parts.")
    trace = trace_id(request.headers.getlist("traceparent"))
    rows = rows._replace(vouched=flag(request, "vouch") or rows.vouched, trace=trace)
    stored = await app.ingest.store(name, rows, key, sender=caller(request).id)
    return answer(stored.to_dict() | not_learned(rows.model), 202)
