"""The route `score`, and the look-up of the champion that judges."""

import asyncio
import time
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi
from service.api.guard import needs
from service.api.parts import Parts, parts
from service.api.request_bodies import ScoreBody
from service.api.responses import respond
from service.api.routes.parameters import Name
from service.domain.champion import Champion
from service.domain.detector import template_of
from service.domain.scope import Scope
from service.scoring.cost import fits_inline
from service.scoring.request import ScoreRequest, parse_query
from service.scoring.vectors import OCTETS, media_type

router = APIRouter(prefix="/v1/detectors/{name}", tags=["vectors"])


_EXPLAIN_COST = 16  # a row with attributions costs this many times as much as one without

_BINARY = {
    "schema": {
        "type": "string",
        "format": "binary",
        "description": "n float32 scores, n float32 p-values, n float32 severities, n uint8 "
        "verdicts, little-endian, one column after the other. n is in X-Anamnesis-Rows.",
    }
}
_HEADERS = {
    f"X-Anamnesis-{suffix}": {"description": text, "schema": {"type": "string"}}
    for suffix, text in {
        "Detector": "Binary answers: the detector.",
        "Judged-By": "Binary answers: the template's detector, if it judged for an entity.",
        "Version": "Binary answers: the version.",
        "Generation": "Binary answers: the generation.",
        "Config-Revision": "Binary answers: the revision of the config.",
        "Threshold": "Binary answers: the threshold.",
        "Calibration": "Binary answers: exact, extrapolated or insufficient.",
        "Rows": "Binary answers: the number of rows.",
    }.items()
}
_SCORED = openapi.answers(
    200, "One entry per row.", documents.ScoreAnswer, others={OCTETS: _BINARY}, headers=_HEADERS
)


@router.post(
    "/score",
    summary="Score vectors with the champion",
    dependencies=[needs(Scope.SCORE)],
    responses=_SCORED | openapi.problems(404, 409, 410, 413, 415, 422, 503),
    openapi_extra=openapi.rows_body(
        ScoreBody,
        openapi.query("version", "The version that scores, instead of the champion."),
        openapi.query("explain", "How many largest contributions to add to each row (JSON only)."),
        openapi.query(
            "record",
            "With `false` the rows enter no event, no incident, no drift and no history.",
            type="boolean",
        ),
    ),
)
async def score(request: Request, name: Name) -> Response:
    """Return score, p-value, severity and verdict of every row."""
    app = parts(request)
    query = parse_query(request.url.query)
    await ensure_known(app, name)
    if query.version:
        champion: Champion | None = await app.watcher.pinned(name, query.version)
    else:
        champion = await stand_in(app, name)
    score_request = ScoreRequest(
        name,
        await request.body(),
        request.headers.get("content-type"),
        ", ".join(request.headers.getlist("accept")) or None,
        request.url.query,
        champion,
    )
    serving = champion or app.champions.get(name)
    # Attributions need a gradient for each row, and make the answer longer.
    size = len(score_request.body) * (_EXPLAIN_COST if query.explain else 1)
    kind = media_type(score_request.content_type)
    if serving is None or fits_inline(kind, size, serving.inline):
        return respond(app.scoring.score(score_request))
    started = time.perf_counter()
    turn = await asyncio.to_thread(app.scoring.compute, (score_request,))
    app.scoring.record(turn, time.perf_counter() - started)
    return respond(turn.replies[0])


async def stand_in(app: Parts, name: str) -> Champion | None:
    """Return the champion of the template's detector if it must judge for this entity.

    None if the entity has its own champion, or if the template's detector has none.
    """
    template = template_of(name)
    if template not in app.champions.templates or app.champions.get(name) is not None:
        return None
    assert template is not None
    await ensure_known(app, template)
    champion = app.champions.get(template)
    return champion and replace(champion, stands_for=name)


async def ensure_known(app: Parts, name: str) -> None:
    """Read the detector from the store if this process has no champion of it in memory."""
    if app.champions.get(name) is None:
        await app.watcher.ensure_known(name)
    else:
        app.champions.touch((name,))
