"""The history of a detector: its scores over time, and the moves of its champion."""

from fastapi import APIRouter, Request, Response

from service.api import incident_documents as documents
from service.api import openapi
from service.api.guard import needs
from service.api.parts import parts
from service.api.responses import answer
from service.api.routes.parameters import Name
from service.api.routes.queries import MOST, PAGE, next_page, time_range, whole_number
from service.api.status import existing
from service.domain import history
from service.domain.history import Buckets, Point
from service.domain.scope import Scope
from service.json_value import JsonObject
from service.problems import Unprocessable
from service.timestamps import rfc3339

router = APIRouter(prefix="/v1/detectors/{name}", tags=["history"])

_DAY = 86_400.0


@router.get(
    "/history",
    summary="Show what was scored over time",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(
        200, "Oldest bucket first. Empty buckets are left out.", documents.History
    )
    | openapi.problems(404, 422, 503),
    openapi_extra={
        "parameters": [
            openapi.query(
                "from", "The earliest time. Default: one day before `to`.", type="string"
            ),
            openapi.query("to", "Only before this time. Default: now.", type="string"),
            openapi.query(
                "points",
                "The largest number of buckets.",
                maximum=history.POINTS,
                default=history.POINTS,
            ),
        ]
    },
)
async def get(request: Request, name: Name) -> Response:
    """Return rows, alarms, severities and regimes in buckets.

    A bucket is a minute for the last two days, and an hour before that.
    """
    app = parts(request)
    period = time_range(request)
    most = whole_number(request, "points", history.POINTS, history.POINTS)
    now = app.stores.clock.last_known()  # rows without times are dated with it
    end = now + history.MINUTE if period.end is None else period.end
    start = end - _DAY if period.start is None else period.start
    if end <= start:
        raise Unprocessable("`from` in the query must be before now.")
    await existing(app, name)
    minutes: Buckets = {}
    hours: Buckets = {}
    chunks = history.chunks_within(start, end)
    for chunk, buckets in (await app.stores.incidents.buckets(name, chunks)).items():
        (minutes if history.step_of(chunk) == history.MINUTE else hours).update(buckets)
    points = history.points(minutes, hours, start, end, most)
    return answer({"buckets": [_document(point) for point in points]})


def _document(point: Point) -> JsonObject:
    bucket = point.bucket
    return {
        "at": rfc3339(point.at),
        "rows": bucket.rows,
        "alarms": bucket.alarms,
        "severity_max": bucket.severity_max,
        "severity_p99": bucket.percentile(0.99),
        "severity_p50": bucket.percentile(0.5),
        "generation": bucket.generation,
        "regimes": history.shares(bucket.regimes),
    }


@router.get(
    "/generations",
    summary="List the moves of the champion",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Newest first.", documents.Generations)
    | openapi.problems(404, 422, 503),
    openapi_extra={
        "parameters": [
            openapi.query("after", "The `next` of the page before."),
            openapi.query("limit", "The largest number of moves.", maximum=MOST, default=PAGE),
        ]
    },
)
async def generations(request: Request, name: Name) -> Response:
    """Return every move of the champion: from which version to which, who moved it, how and why."""
    app = parts(request)
    limit = whole_number(request, "limit", PAGE)
    before = None
    if request.query_params.get("after") is not None:
        before = whole_number(request, "after", 1, 2**31)
    await existing(app, name)
    most = limit + 1 if before is None else 10_000
    moves = await app.stores.registry.history(name, limit=most)
    moves = sorted(moves, key=lambda move: -move.generation)
    if before is not None:
        moves = [move for move in moves if move.generation < before]
    last = moves[limit - 1].generation if len(moves) > limit else None
    return answer({"generations": moves[:limit]} | next_page(last))
