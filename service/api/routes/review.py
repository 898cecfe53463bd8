"""What people look at and decide: anomalies, labels, quarantine, drift."""

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from service.api import documents, openapi, request_bodies
from service.api.context import Parts, parts
from service.api.guard import caller, needs
from service.api.request_bodies import Labelled
from service.api.responses import answer
from service.api.routes.parameters import Name, idempotency_key
from service.api.status import existing, settled
from service.domain.api_key import Scope
from service.domain.detector import Detector
from service.domain.event import Event, Label
from service.problems import BadVectors, Unknown, UnknownDetector, Unprocessable
from service.scoring import vectors as payload

router = APIRouter(prefix="/v1/detectors/{name}", tags=["review"])

_EVENTS_SHOWN = 100
_ROWS_SHOWN = 1000

_EVENT = {
    "id": "1763726400000-0",
    "at": "2026-11-21T12:00:00.000Z",
    "vector": [0.1, 1.4, 9.9],
    "score": 40.2,
    "p_value": 0.0002,
    "severity": 1.85,
    "version": 3,
    "generation": 4,
    "attributions": [{"feature": "2", "contribution": 36.5, "value": 9.9, "expected": 3.2}],
}


@router.get(
    "/events",
    summary="List the latest anomalies",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Newest first.", {"events": [_EVENT]}, documents.Events)
    | openapi.problems(404, 422, 503),
    openapi_extra={
        "parameters": [openapi.query("limit", "At most so many.", maximum=1000, default=100)]
    },
)
async def events(request: Request, name: Name) -> Response:
    """Return them with vector, score, p-value, version and what contributed most."""
    app = parts(request)
    await existing(app, name)
    text = request.query_params.get("limit", str(_EVENTS_SHOWN))
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= 1000):
        raise Unprocessable("`limit` in the query is a whole number from 1 to 1000.")
    found = await app.stores.events.latest(name, limit=int(text))
    return answer({"events": [event.to_dict() for event in found]})


@router.post(
    "/feedback",
    summary="Label anomalies or vectors",
    dependencies=[needs(Scope.INGEST)],
    responses=openapi.answers(
        200,
        "Kept.",
        {"labels": 2, "normal": 1, "anomaly": 1, "buffered": 121},
        documents.FeedbackAnswer,
    )
    | openapi.problems(400, 404, 413, 415, 422, 429, 503),
    openapi_extra=openapi.json_body(
        {
            "labels": [
                {"label": "normal", "event": "1763726400000-0"},
                {"label": "anomaly", "vector": [0.1, 1.4, 9.9]},
            ]
        },
        required=True,
    )
    | {"parameters": [openapi.header("Idempotency-Key", "As for `normal`.", "review-17")]},
)
async def feedback(request: Request, name: Name) -> Response:
    """Put vectors labelled normal into the buffer, and keep every label: it may set thresholds."""
    app = parts(request)
    app.writable()
    key = idempotency_key(request.headers.get("idempotency-key"))
    asked = (await request_bodies.read(request, request_bodies.Feedback)).labels
    detector = await existing(app, name)
    labels = await _labels(app, detector, asked)
    normals = [label.vector for label in labels if label.label == "normal"]
    buffered = detector.buffered
    if normals:
        stored = await app.ingest.store(
            name, np.stack(normals), key, sender=caller(request).id, judged=False
        )
        buffered = stored["buffered"]
    who = f"key:{caller(request).id}"
    kept = await app.stores.events.label(name, detector.uid, labels, idempotency_key=key, who=who)
    if not kept:
        raise UnknownDetector("The detector was deleted.")
    if "labels" in detector.config.threshold:
        await settled(app, name)
    counted = {"normal": len(normals), "anomaly": len(labels) - len(normals)}
    return answer({"labels": len(labels), **counted, "buffered": buffered})


async def _labels(app: Parts, detector: Detector, asked: list[Labelled]) -> list[Label]:
    """Return the labels with their vectors; rows of problems count the labels given."""
    for row, one in enumerate(asked):
        if (one.event is None) == (one.vector is None):
            raise BadVectors("A label is for an `event` or for a `vector`.", row=row)
    wanted = [one.event for one in asked if one.event is not None]
    held: dict[str, Event] = await app.stores.events.get(detector.name, wanted) if wanted else {}
    vectors: list[payload.Matrix] = []
    for row, one in enumerate(asked):
        if one.event is not None and one.event not in held:
            raise Unknown("The event is not kept, or never was.", row=row)
        with np.errstate(over="ignore"):
            vector = (
                np.asarray(one.vector, np.float32)
                if one.event is None
                else held[one.event].vector.astype(np.float32)
            )
        width = detector.dimension or (len(vectors[0]) if vectors else None)
        if width is not None and len(vector) != width:
            raise BadVectors(f"The vector has {len(vector)} numbers, not {width}.", row=row)
        vectors.append(vector)
    X = payload.check(np.stack(vectors), detector.dimension)
    return [Label(one.label, vector, one.event) for one, vector in zip(asked, X, strict=True)]


_ENTRY = {
    "id": "v4",
    "kind": "experience",
    "vectors": 1000,
    "reason": "false-alarm rate on replayed old normals",
    "version": 4,
    "parked_at": "2026-11-21T12:00:00.000Z",
    "decision": None,
}


@router.get(
    "/quarantine",
    summary="List what is held back",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Oldest first.", {"quarantine": [_ENTRY]}, documents.Quarantine)
    | openapi.problems(404, 503),
)
async def quarantine(request: Request, name: Name) -> Response:
    """Return what waits for a person: experiences that were rejected or failed, rows held back."""
    app = parts(request)
    await existing(app, name)
    return answer({"quarantine": await app.stores.quarantine.list(name)})


@router.get(
    "/quarantine/{entry}",
    summary="Show rows that are held back",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(
        200,
        "The first 1,000.",
        {"id": "r1763726400000-0", "vectors": [[0.1, 1.4, 9.9]]},
        documents.QuarantinedRows,
    )
    | openapi.problems(404, 503),
)
async def rows(request: Request, name: Name, entry: str) -> Response:
    """Return the vectors of an entry of kind `rows`."""
    app = parts(request)
    await existing(app, name)
    X = await app.stores.quarantine.vectors(name, entry)
    return answer({"id": entry, "vectors": X[:_ROWS_SHOWN].tolist()})


@router.post(
    "/quarantine/{entry}",
    summary="Release or discard what is held back",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(
        200, "Done.", {"id": "v4", "decision": "release", "vectors": 1000}, documents.Decided
    )
    | openapi.problems(404, 409, 413, 415, 422, 503),
    openapi_extra=openapi.json_body({"decision": "release"}, required=True),
)
async def decide(request: Request, name: Name, entry: str) -> Response:
    """Send it back to the buffer, or delete it."""
    app = parts(request)
    app.writable()
    decision = (await request_bodies.read(request, request_bodies.Decide)).decision
    await existing(app, name)
    if len(entry) > 64 or not entry.isascii() or not entry.isprintable():
        raise Unknown("There is no such quarantine entry.")
    vectors = await app.stores.quarantine.decide(
        name, entry, decision, who=f"key:{caller(request).id}"
    )
    return answer({"id": entry, "decision": decision, "vectors": vectors})


_DRIFT: dict[str, Any] = {
    "state": "new_regime",
    "version": 3,
    "statistics": {
        "martingale": {"statistic": 7.2, "threshold": 4.605, "alarm": True},
        "features": [{"feature": "2", "statistic": 0.41, "threshold": 0.1, "alarm": True}],
    },
}


@router.get(
    "/drift",
    summary="Describe the drift of live traffic",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(
        200, "Statistic, threshold and verdict per test.", _DRIFT, documents.Drift
    )
    | openapi.problems(404, 503),
)
async def drift(request: Request, name: Name) -> Response:
    """Return the drift state and the tests behind it, with the worst features."""
    return answer((await existing(parts(request), name)).drift)
