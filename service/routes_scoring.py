"""`score` and `normal`: the two routes that carry vectors."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Request, Response

from service import openapi, payload
from service.answers import Reply
from service.grants import Scope
from service.guard import caller, needs
from service.ingest import idempotency_key
from service.parts import Parts, parts
from service.payload import OCTETS
from service.problems import StoreUnavailable, TooLarge
from service.responses import answer
from service.scoring import ScoreRequest, inline, parse_query

router = APIRouter(prefix="/v1/detectors/{name}", tags=["vectors"])

Name = Annotated[str, Path(description="The detector.", examples=["pump-7"])]
T = TypeVar("T")

_ANSWER = {
    "detector": "pump-7",
    "version": 3,
    "generation": 4,
    "config_revision": 1,
    "threshold": 11.82,
    "calibration": "exact",
    "scores": [3.1, 40.2],
    "p_values": [0.41, 0.0002],
    "severities": [0.19, 1.85],
    "is_anomaly": [False, True],
}
_BINARY = {
    "schema": {
        "type": "string",
        "format": "binary",
        "description": "n float32 scores, n float32 p-values, n float32 severities, n uint8 "
        "verdicts, little-endian, one after the other; n is in X-Anamnesis-Rows.",
    }
}
_HEADERS = {
    f"X-Anamnesis-{what}": {"description": text, "schema": {"type": "string"}}
    for what, text in {
        "Detector": "Binary answers: the detector.",
        "Version": "Binary answers: the version.",
        "Generation": "Binary answers: the generation.",
        "Config-Revision": "Binary answers: the revision of the config.",
        "Threshold": "Binary answers: the threshold.",
        "Calibration": "Binary answers: exact, extrapolated or insufficient.",
        "Rows": "Binary answers: the number of rows.",
    }.items()
}
_SCORED = openapi.answers(200, "One entry per row.", _ANSWER, headers=_HEADERS)
_SCORED[200]["content"][OCTETS] = _BINARY


@router.post(
    "/score",
    summary="Score vectors with the champion",
    dependencies=[needs(Scope.SCORE)],
    responses=_SCORED | openapi.problems(404, 409, 410, 413, 415, 422, 503),
    openapi_extra=openapi.vectors_body()
    | {
        "parameters": [
            openapi.query("version", "Pins a version instead of the champion."),
            openapi.query("explain", "Adds the k largest contributions of each row (JSON only)."),
        ]
    },
)
async def score(request: Request, name: Name) -> Response:
    """Return score, p-value, severity and verdict of every row."""
    app = parts(request)
    pinned = parse_query(request.url.query).version
    await _know(app, name)
    champion = await app.watcher.pinned(name, pinned) if pinned else None
    asked = ScoreRequest(
        name,
        await request.body(),
        request.headers.get("content-type"),
        request.headers.get("accept"),
        request.url.query,
        champion,
    )
    serving = champion or app.champions.get(name)
    dimension = serving.version.dimension if serving else 1
    if inline(asked.content_type, len(asked.body), dimension):
        return _response(app.scoring.score(asked))
    started = time.perf_counter()
    turn = await asyncio.to_thread(app.scoring.compute, (asked,))
    app.scoring.record(turn, time.perf_counter() - started)
    return _response(turn.replies[0])


async def _know(app: Parts, name: str) -> None:
    """Ask the store for a detector or a first version that this process has not heard of yet."""
    if app.champions.get(name) is not None:
        return
    if app.champions.detector(name) is None:
        await app.watcher.look_up(name)
    elif app.watcher.redis_up:
        with contextlib.suppress(StoreUnavailable):
            await app.watcher.refresh(name)


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status, media_type=None)
    response.headers["content-type"] = reply.content_type
    for field, value in reply.headers:
        response.headers[field] = value
    return response


_INGESTED = {
    "batch_id": "9f86d081884c7d65",
    "accepted": 2,
    "quarantined": 0,
    "duplicate": 0,
    "buffered": 122,
}


@router.post(
    "/normal",
    summary="Send vectors that are vouched for as normal",
    dependencies=[needs(Scope.INGEST)],
    status_code=202,
    responses=openapi.answers(202, "Stored durably.", _INGESTED)
    | openapi.problems(400, 404, 413, 415, 422, 429, 503),
    openapi_extra=openapi.vectors_body()
    | {
        "parameters": [
            openapi.header(
                "Idempotency-Key",
                "Makes a retry within 24 hours store nothing twice: 1 to 255 visible ASCII "
                "characters.",
                "2026-11-21T12:00:00Z/pump-7",
            )
        ]
    },
)
async def normal(request: Request, name: Name) -> Response:
    """Answer once the batch is durable in the buffer."""
    app = parts(request)
    key = idempotency_key(request.headers.get("idempotency-key"))
    kind = payload.media_type(request.headers.get("content-type"))
    dimension = await app.ingest.dimension(name)
    body = await request.body()
    at_once = inline(kind, len(body), dimension or 1)
    X = await _inline_or_not(at_once, lambda: payload.matrix(kind, body, dimension))
    most = app.settings
    if X.nbytes > most.buffer_max_bytes or len(X) > most.buffer_max_vectors:
        raise TooLarge("The batch is larger than the buffer: send it in parts.")
    return answer(await app.ingest.store(name, X, key, sender=caller(request).id), 202)


async def _inline_or_not(at_once: bool, work: Callable[[], T]) -> T:
    return work() if at_once else await asyncio.to_thread(work)
