"""The Open Inference Protocol (KServe V2): a detector is a model, a version a model version."""

import asyncio
import time
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from service.api import open_inference_documents as documents
from service.api import openapi
from service.api.guard import caller, needs, open_to_all
from service.api.middleware import lower_body_bound
from service.api.parts import Parts, parts
from service.api.request_bodies import MOST_SMALL
from service.api.responses import answer, respond
from service.api.routes.parameters import Name
from service.api.routes.scoring import ensure_known
from service.api.routes.versions import Number, version_number
from service.domain.champion import Champion
from service.domain.scope import Scope
from service.problems import Conflict, Unprocessable, Unready, UnsupportedMedia
from service.scoring import open_inference
from service.scoring.answers import Reply
from service.scoring.core import Judged, ScoredTurn, judge
from service.scoring.cost import fits_inline
from service.scoring.open_inference import HEADER_LENGTH
from service.scoring.vectors import JSON, NPY, OCTETS, essence

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
_INFER = {
    "inputs": [{"name": "vectors", "datatype": "FP32", "shape": [1, 3], "data": [[0.1, 1.4, 9.9]]}]
}
_READY = openapi.answers(200, "It is.", documents.InferenceReady, {"name": "pump-7", "ready": True})
_DESCRIBED = openapi.answers(200, "Its tensors.", documents.InferenceModel) | openapi.problems(
    404, 409, 410, 503
)
_WITH_BYTES = openapi.BINARY | {"description": "The JSON document, and raw tensors after it."}
_LENGTH = "The length of the JSON document, if raw tensors follow it."
_SCORED: dict[str, Any] = {
    "responses": openapi.answers(
        200,
        "The outputs.",
        documents.InferenceAnswer,
        others={OCTETS: {"schema": _WITH_BYTES}},
        headers={HEADER_LENGTH: {"description": _LENGTH, "schema": {"type": "integer"}}},
    )
    | openapi.problems(400, 404, 409, 410, 413, 415, 422, 503),
    "openapi_extra": openapi.json_body(
        documents.InferenceRequest, _INFER, others={OCTETS: _WITH_BYTES}
    )
    | {"parameters": [openapi.header(HEADER_LENGTH, _LENGTH, "132")]},
}

_TYPES = ("", "application/json", "application/octet-stream")


@router.get(
    "",
    summary="Metadata of the server",
    dependencies=[open_to_all()],
    responses=openapi.answers(200, "What it is.", documents.InferenceServer),
)
async def server(request: Request) -> Response:
    """Return the server's name, its version and the protocol extensions that it supports."""
    about = {"name": "anamnesis", "version": request.app.version}
    return answer(about | {"extensions": open_inference.EXTENSIONS})


@router.get(
    "/health/live",
    summary="Is the process alive?",
    dependencies=[open_to_all()],
    responses=openapi.answers(200, "It is.", documents.InferenceReady, {"live": True}),
)
async def live() -> Response:
    """Answer 200 as long as the process can answer at all."""
    return answer({"live": True})


@router.get(
    "/health/ready",
    summary="Can the process serve?",
    dependencies=[open_to_all()],
    responses=openapi.answers(200, "It can.", documents.InferenceReady, {"ready": True})
    | openapi.problems(503),
)
async def ready(request: Request) -> Response:
    """Answer 200 if the store answers or at least one champion is in memory."""
    app = parts(request)
    if not app.champions.loaded() and not (app.watcher.health.redis_up and app.access.informed):
        raise Unready()
    return answer({"ready": True})


@router.post(
    "/repository/index",
    summary="List the models",
    dependencies=[needs(Scope.SCORE)],
    responses=openapi.answers(
        200,
        "By name.",
        documents.IndexedModel,
        [{"name": "pump-7", "version": "3", "state": "READY"}],
    )
    | openapi.problems(413, 422),
    openapi_extra=openapi.json_body(documents.IndexRequest, {"ready": True}, required=False),
)
async def index(request: Request) -> Response:
    """Return every detector that the API key covers.

    A detector with a champion is READY. A detector that has no champion, or that takes no tensors,
    is UNAVAILABLE.
    """
    app, grant = parts(request), caller(request)
    lower_body_bound(request.scope, MOST_SMALL)
    only_ready = _only_ready(await request.body())
    models = []
    for detector in sorted(app.champions.detectors(), key=lambda served: served.name):
        champion = app.champions.get(detector.name)
        unloaded = detector.champion if app.champions.on_demand else None
        number = champion.number if champion else unloaded
        why = None if number else "There is no version yet."
        why = why or open_inference.why_no_tensors(detector.row_config)
        if not grant.covers(detector.name) or (only_ready and why):
            continue
        state = {"reason": why} if why else {"version": str(number)}
        models.append({"name": detector.name, "state": "UNAVAILABLE" if why else "READY", **state})
    return answer(models)


class _IndexBody(msgspec.Struct):
    """The body of a request for the repository's index."""

    ready: object = False


def _only_ready(body: bytes) -> bool:
    if not body:
        return False
    try:
        return msgspec.json.decode(body, type=_IndexBody).ready is True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unprocessable("The body must be a JSON object, or empty.") from None


@router.get(
    "/models/{name}",
    summary="Metadata of a model",
    dependencies=[needs(Scope.SCORE)],
    responses=_DESCRIBED,
)
async def model(request: Request, name: Name) -> Response:
    """Return the input and output tensors of the champion."""
    return _described(await _champion_or_version(parts(request), name, None))


@router.get(
    "/models/{name}/versions/{number}",
    summary="Metadata of a version",
    dependencies=[needs(Scope.SCORE)],
    responses=_DESCRIBED,
)
async def version(request: Request, name: Name, number: Number) -> Response:
    """Return the input and output tensors of one version."""
    return _described(await _champion_or_version(parts(request), name, number))


@router.get(
    "/models/{name}/ready",
    summary="Is a model ready?",
    dependencies=[needs(Scope.SCORE)],
    responses=_READY | openapi.problems(404, 409, 503),
)
async def model_ready(request: Request, name: Name) -> Response:
    """Answer 200 if the detector has a champion."""
    return _ready(await _champion_or_version(parts(request), name, None))


@router.get(
    "/models/{name}/versions/{number}/ready",
    summary="Is a version ready?",
    dependencies=[needs(Scope.SCORE)],
    responses=_READY | openapi.problems(404, 409, 410, 503),
)
async def version_ready(request: Request, name: Name, number: Number) -> Response:
    """Answer 200 if the version can score."""
    return _ready(await _champion_or_version(parts(request), name, number))


@router.post("/models/{name}/infer", summary="Score", dependencies=[needs(Scope.SCORE)], **_SCORED)
async def infer(request: Request, name: Name) -> Response:
    """Score the rows of the tensor `vectors` with the champion."""
    return await _infer(request, name, None)


@router.post(
    "/models/{name}/versions/{number}/infer",
    summary="Score with a version",
    dependencies=[needs(Scope.SCORE)],
    **_SCORED,
)
async def infer_version(request: Request, name: Name, number: Number) -> Response:
    """Score the rows of the tensor `vectors` with one version."""
    return await _infer(request, name, number)


async def _champion_or_version(app: Parts, name: str, number: str | None) -> Champion:
    """Return the champion or a version. Raises Conflict if the detector takes no tensors."""
    await ensure_known(app, name)
    if number is None:
        champion = app.champions.serving(name)
    else:
        champion = await app.watcher.pinned(name, version_number(number))
    if (why := open_inference.why_no_tensors(champion.version.config)) is not None:
        raise Conflict(why)
    return champion


def _described(champion: Champion) -> Response:
    versions, dimension = [champion.number], champion.version.dimension
    return answer(open_inference.metadata(champion.name, versions, dimension))


def _ready(champion: Champion) -> Response:
    return answer({"name": champion.name, "ready": True})


async def _infer(request: Request, name: str, number: str | None) -> Response:
    app = parts(request)
    # Clients of the binary extension send no content type: the body is JSON with bytes behind it.
    if essence(request.headers.get("content-type")) not in _TYPES:
        raise UnsupportedMedia("An inference request must be JSON, or JSON with bytes behind it.")
    champion = await _champion_or_version(app, name, number)
    body, length = await request.body(), request.headers.get(HEADER_LENGTH)

    def work() -> tuple[Reply, Judged]:
        inputs = open_inference.parse(body, length, champion)
        judgement = judge(champion, inputs.X)
        return open_inference.reply(champion, inputs, judgement), Judged(
            champion, inputs.X, judgement
        )

    started = time.perf_counter()
    # A binary tensor may have as little as one byte a number, so the bound of binary types holds.
    at_once = fits_inline(JSON if length is None else NPY, len(body), champion.inline)
    reply, judged = work() if at_once else await asyncio.to_thread(work)
    app.scoring.record(ScoredTurn([], [judged]), time.perf_counter() - started)
    return respond(reply)
