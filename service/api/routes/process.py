"""What is asked of the process itself: is it alive, is it ready, what did it count."""

import time

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi
from service.api.context import parts
from service.api.guard import needs, open_to_all
from service.api.responses import answer
from service.domain.scope import Scope
from service.problems import Unready

router = APIRouter(tags=["process"])

_WORKER_SECONDS = 10.0  # a worker beats every two

_METRICS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/openapi.json", include_in_schema=False, dependencies=[open_to_all()])
async def document(request: Request) -> Response:
    """Return the OpenAPI document."""
    return answer(request.app.openapi())


@router.get(
    "/healthz",
    summary="Is the process alive?",
    dependencies=[open_to_all()],
    responses=openapi.answers(200, "It is.", {"status": "ok"}, documents.Health),
)
async def healthz() -> Response:
    """Answer as long as the process can."""
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Can the process serve?",
    dependencies=[open_to_all()],
    responses=openapi.answers(
        200, "`ready`, or `degraded` without the store.", {"status": "ready"}, documents.Health
    )
    | openapi.problems(503),
)
async def readyz(request: Request) -> Response:
    """Answer 200 while there is a store, or at least a champion in memory."""
    app = parts(request)
    loaded = len(app.champions.loaded())
    if app.watcher.health.redis_up and app.access.informed:
        beat = app.watcher.health.worker_heartbeat
        worker = beat is not None and time.time() - beat < _WORKER_SECONDS
        return answer({"status": "ready", "champions": loaded, "worker": worker})
    if loaded:
        return answer({"status": "degraded", "champions": loaded})
    raise Unready("The store does not answer, and no champion is in memory.")


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    dependencies=[needs(Scope.METRICS, whole=True)],
    response_class=Response,
    responses={200: {"description": "Exposition format.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Return what all API processes of this machine counted, and what the store holds."""
    app = parts(request)
    page = app.metrics.expose(app.state_metrics)
    return Response(page, headers={"content-type": _METRICS})
