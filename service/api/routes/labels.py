"""Labels that people give to anomalies and vectors: add, list and delete them."""

import hashlib
import time
from dataclasses import replace

import numpy as np
from fastapi import APIRouter, Request, Response

from models.arrays import Array
from service.api import incident_documents as documents
from service.api import openapi, request_bodies
from service.api.guard import caller, needs
from service.api.incident_decisions import at_next_retraining
from service.api.parts import Parts, parts
from service.api.request_bodies import NewLabel
from service.api.responses import answer
from service.api.routes.parameters import Name, idempotency_key
from service.api.routes.queries import PAGE, next_page, page, pages_of, whole_number
from service.api.status import existing, show_own_labels
from service.domain.api_key import Grant
from service.domain.detector import Detector
from service.domain.event import Event, Label
from service.domain.incident import event_pattern, pattern_of_event
from service.domain.scope import Scope
from service.problems import BadVectors, BufferFull, Forbidden, UnknownDetector, no_such
from service.scoring.request_rows import labelled_rows
from service.scoring.vectors import check

router = APIRouter(prefix="/v1/detectors/{name}", tags=["review"])


@router.post(
    "/feedback",
    summary="Label anomalies or vectors",
    dependencies=[needs(Scope.INGEST, Scope.LABEL)],
    responses=openapi.answers(200, "Stored.", documents.FeedbackAnswer)
    | openapi.problems(400, 404, 413, 415, 422, 429, 503, instead=BufferFull),
    openapi_extra=openapi.json_body(
        request_bodies.Feedback,
        {
            "labels": [
                {"label": "normal", "event": "1763726400000-0"},
                {"label": "anomaly", "vector": [0.1, 1.4, 9.9]},
            ]
        },
    )
    | {"parameters": [openapi.header("Idempotency-Key", "As for `normal`.", "review-17")]},
)
async def feedback(request: Request, name: Name) -> Response:
    """Store the labels, and buffer the rows that are labelled normal.

    A row of a recorded event is buffered as it is. Admission judges every other row first.
    """
    app = parts(request)
    app.check_writable()
    key, sender = idempotency_key(request.headers.get("idempotency-key")), caller(request)
    labelled = (await request_bodies.read(request, request_bodies.Feedback)).labels
    _check_scope(sender, labelled)
    detector = await existing(app, name)
    labels, normal_events = await _labels(app, detector, labelled, sender.id)
    stored, batch = await _buffer(app, detector, labels, key, sender.id)
    labels = [_with_batch(label, batch) for label in labels]
    body = hashlib.sha256(sender.id.encode() + b"\n" + await request.body()).hexdigest()
    kept = await app.stores.labels.add(
        name, detector.uid, labels, idempotency_key=key, digest=body, who=sender.who
    )
    if not kept:
        raise UnknownDetector("The detector was deleted.")
    patterns = [pattern_of_event(event, sender.id) for event in normal_events]
    await app.stores.incidents.add_dismissed_patterns(
        name, [pattern for pattern in patterns if pattern]
    )
    await show_own_labels(app, detector)
    normal = sum(label.label == "normal" for label in labels)
    given = {"normal": normal, "anomaly": len(labels) - normal}
    effect = _effect(detector, [label for label in labels if label.batch])
    return answer({"labels": len(labels), **given, **stored, "effect": effect})


def _check_scope(sender: Grant, labelled: list[NewLabel]) -> None:
    """Raise Forbidden if a key without the scope `label` labels anomalies."""
    if Scope.LABEL not in sender.scopes and any(label.label == "anomaly" for label in labelled):
        raise Forbidden(Scope.LABEL, "A label `anomaly` needs an API key with the scope label.")


async def _labels(
    app: Parts, detector: Detector, labelled: list[NewLabel], sender: str
) -> tuple[list[Label], list[Event]]:
    """Return the labels with their vectors, and the events that are labelled normal.

    The `row` of a problem is the position of the label in the request.
    """
    for row, label in enumerate(labelled):
        if (label.event is None) == (label.vector is None):
            raise BadVectors("A label must have either `event` or `vector`.", row=row)
    event_ids = [label.event for label in labelled if label.event is not None]
    stored_events: dict[str, Event] = (
        await app.stores.events.get(detector.name, event_ids) if event_ids else {}
    )
    vectors: list[Array] = []
    for row, label in enumerate(labelled):
        if label.event is None and (detector.config.words or detector.undecided):
            why = "has categories" if detector.config.words else "has no context yet"
            raise BadVectors(
                f"The detector {why}: a label must name an `event`, not a `vector`.", row=row
            )
        if label.event is not None and label.event not in stored_events:
            raise no_such("event", ".../events", row=row)
        with np.errstate(over="ignore"):
            vector = (
                np.asarray(label.vector, np.float32)
                if label.event is None
                else stored_events[label.event].vector.astype(np.float32)
            )
        width = detector.dimension or (len(vectors[0]) if vectors else None)
        if width is not None and len(vector) != width:
            raise BadVectors(f"The vector has {len(vector)} numbers, not {width}.", row=row)
        vectors.append(vector)
    X, now = check(np.stack(vectors), detector.dimension), time.time()
    labels = [
        Label(label.label, vector, label.event, now, sender=sender)
        for label, vector in zip(labelled, X, strict=True)
    ]
    normal_events = [
        stored_events[label.event] for label in labelled if label.event and label.label == "normal"
    ]
    return labels, normal_events


async def _buffer(
    app: Parts, detector: Detector, labels: list[Label], key: str | None, sender: str
) -> tuple[dict[str, int], str | None]:
    """Buffer the rows labelled normal. Admission judges rows that belong to no recorded event.

    Returns the counts `buffered` and `quarantined`, and the batch id of the rows of events.
    """
    counts, batch = {"buffered": detector.buffered, "quarantined": 0}, None
    for recorded in (True, False):
        rows = [
            label.vector
            for label in labels
            if label.label == "normal" and (label.event is not None) == recorded
        ]
        if not rows:
            continue
        # One request stores two batches, so each needs a key of its own.
        batch_key = key and f"{key}\n{'events' if recorded else 'vectors'}"
        stored = await app.ingest.store(
            detector.name,
            labelled_rows(np.stack(rows)),
            batch_key,
            sender=sender,
            judged=not recorded,
        )
        if recorded:
            batch = stored.batch_id
        counts["buffered"] = stored.buffered
        counts["quarantined"] += stored.quarantined
    return counts, batch


def _effect(detector: Detector, learned: list[Label]) -> str | None:
    """Return a sentence about the effect of the labels `learned`, None if there are none."""
    if not learned:
        return None
    rows = "row labelled normal is" if len(learned) == 1 else "rows labelled normal are"
    return f"{len(learned)} {rows} learned at the next retraining. {at_next_retraining(detector)}"


def _with_batch(label: Label, batch: str | None) -> Label:
    """Return the label with the id of its batch if it labels an event as normal."""
    if label.label == "normal" and label.event is not None:
        return replace(label, batch=batch)
    return label


@router.get(
    "/labels",
    summary="List the labels",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Newest first.", documents.Labels)
    | openapi.problems(404, 422, 503),
    openapi_extra={"parameters": pages_of("labels")},
)
async def index(request: Request, name: Name) -> Response:
    """Return the labels with their senders and times."""
    app = parts(request)
    limit = whole_number(request, "limit", PAGE)
    await existing(app, name)
    labels = await app.stores.labels.all(name)
    shown, last = page(labels, lambda label: label.id, request, limit, "no label")
    return answer({"labels": [label.to_dict() for label in shown]} | next_page(last))


@router.delete(
    "/labels/{label}",
    summary="Delete a label",
    dependencies=[needs(Scope.LABEL)],
    status_code=204,
    response_class=Response,
    responses=openapi.problems(404, 503),
)
async def delete(request: Request, name: Name, label: str) -> Response:
    """Delete the label.

    Rows like that of an event labelled normal may page somebody again. A row that the label sent
    to the buffer stays there. `revoke` with its batch removes it.
    """
    app = parts(request)
    app.check_writable()
    detector = await existing(app, name)
    stored = await app.stores.labels.all(name)
    labels = [one for one in stored if one.id == label]
    if not await app.stores.labels.delete(name, labels, who=caller(request).who):
        raise no_such("label", ".../labels")
    kept = {one.event for one in stored if one.id != label and one.label == "normal"}
    patterns = [event_pattern(one.event) for one in labels if one.event and one.event not in kept]
    await app.stores.incidents.delete_patterns(name, patterns)
    await show_own_labels(app, detector)
    return Response(status_code=204)
