"""What is asked of the process itself: is it alive, is it ready, what did it count."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service import openapi
from service.parts import parts
from service.problems import Unready
from service.responses import answer

router = APIRouter(tags=["process"])

_METRICS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/", include_in_schema=False)
async def root() -> Response:
    """Lead to the documentation."""
    return RedirectResponse("/docs", 307)


@router.get(
    "/healthz",
    summary="Is the process alive?",
    responses=openapi.answers(200, "It is.", {"status": "ok"}),
)
async def healthz() -> Response:
    """Answer as long as the process can."""
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Can the process serve?",
    responses=openapi.answers(200, "`ready`, or `degraded` without the store.", {"status": "ready"})
    | openapi.problems(503),
)
async def readyz(request: Request) -> Response:
    """Answer 200 while there is a store, or at least a champion in memory."""
    app = parts(request)
    loaded = len(app.champions.loaded())
    if app.watcher.redis_up:
        return answer({"status": "ready", "champions": loaded})
    if loaded:
        return answer({"status": "degraded", "champions": loaded})
    raise Unready("The store does not answer, and no champion is in memory.")


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"description": "Exposition format.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Return what all API processes of this machine counted, and what the store holds."""
    app = parts(request)
    page = app.metrics.expose(app.state_metrics)
    return Response(page, headers={"content-type": _METRICS})
