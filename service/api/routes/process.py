"""Routes about the process itself: alive, ready, metrics, OpenAPI document."""

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi
from service.api.guard import needs, open_to_all
from service.api.parts import parts
from service.api.responses import answer
from service.domain.scope import Scope
from service.problems import Unready

router = APIRouter(tags=["process"])

_METRICS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/openapi.json", include_in_schema=False, dependencies=[open_to_all()])
async def document(request: Request) -> Response:
    """Return the OpenAPI document."""
    return Response(request.app.state.openapi(), media_type="application/json")


@router.get(
    "/healthz",
    summary="Is the process alive?",
    dependencies=[open_to_all()],
    responses=openapi.answers(200, "It is.", documents.Health, {"status": "ok"}),
)
async def healthz() -> Response:
    """Answer 200 as long as the process can answer at all."""
    return answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Can the process serve?",
    dependencies=[open_to_all()],
    responses=openapi.answers(
        200,
        "`ready`, or `degraded` if the store or every worker is missing.",
        documents.Health,
        {"status": "ready", "champions": 1, "worker": True},
    )
    | openapi.problems(503, instead=Unready),
)
async def readyz(request: Request) -> Response:
    """Answer 200 if the store answers or at least one champion is in memory."""
    app = parts(request)
    loaded = len(app.champions.loaded())
    health = app.watcher.health
    if health.redis_up and app.access.informed:
        missing = health.no_worker
        state = {"status": "degraded", "why": missing} if missing else {"status": "ready"}
        return answer(state | {"champions": loaded, "worker": missing is None})
    if loaded:
        why = "the API keys are not read yet" if health.redis_up else "the store does not answer"
        return answer({"status": "degraded", "why": why, "champions": loaded})
    raise Unready()


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    dependencies=[needs(Scope.METRICS, whole_service=True)],
    response_class=Response,
    responses={200: {"description": "Exposition format.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Return the counters of all API processes of this machine, and the metrics of the store."""
    app = parts(request)
    page = await app.metrics.expose(app.store_metrics)
    return Response(page, headers={"content-type": _METRICS})
