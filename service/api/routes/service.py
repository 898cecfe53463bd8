"""The service as a whole: the work for people and for workers, and its processes."""

import time

from fastapi import APIRouter, Request, Response

from service import log
from service.api import incident_documents as documents
from service.api import openapi
from service.api.guard import caller, needs
from service.api.parts import Parts, parts
from service.api.responses import answer
from service.domain.attention import Item, of_detector, of_service, worst_first
from service.domain.scope import Scope
from service.json_value import JsonObject
from service.store.due_index import Work
from service.timestamps import rfc3339

router = APIRouter(prefix="/v1", tags=["service"])

_log = log.get(__name__)

_ITEM = {
    "detector": "pump-7",
    "kind": "incident",
    "sentence": "speed 2790 where 2827 is expected; as rare as 1 in 20 million normals; since "
    "28 Nov 10:19 UTC, 34 rows",
    "path": "/v1/detectors/pump-7/incidents/i7-1795861140000",
    "since": "2026-11-28T10:19:00.000Z",
}


@router.get(
    "/attention",
    summary="Say what needs a person now",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Worst first.", documents.Attention, {"items": [_ITEM]})
    | openapi.problems(503),
)
async def attention(request: Request) -> Response:
    """Return what needs a person now, for every detector that the API key covers."""
    app, grant = parts(request), caller(request)
    # Mutes and reports are dated with the store's clock.
    items, now = of_service(_store_trouble(app), _worker_age(app)), app.stores.clock.last_known()
    # A muted detector needs nobody.
    detectors = [
        detector
        for detector in await app.stores.detectors.list()
        if grant.covers(detector.name) and not detector.muted(now)
    ]
    unread = {}
    if "worker" not in {item.kind for item in items}:  # otherwise that item says enough
        unread = await app.stores.traffic.unread_since([detector.name for detector in detectors])
    incidents = await app.stores.batched.open_incidents(
        {detector.name: detector.incidents.unfinished for detector in detectors}
    )
    for detector in detectors:
        # One damaged detector must not stop the others.
        with log.tolerated(_log, "what a detector needs is unknown", detector=detector.name):
            items += of_detector(
                detector,
                [(one.incident, one.verdict) for one in incidents[detector.name]],
                now,
                buffer_bound=app.settings.buffer_max_vectors,
                unread_since=unread.get(detector.name),
            )
    return answer({"items": [_document(item) for item in worst_first(items)]})


def _document(item: Item) -> JsonObject:
    return item._asdict() | {"since": rfc3339(item.since)}


def _store_trouble(app: Parts) -> str | None:
    if not app.watcher.health.redis_up:
        return "the store does not answer: scoring goes on, nothing is stored"
    return app.watcher.health.refusal


def _worker_age(app: Parts) -> float | None:
    heard = app.watcher.health.worker_heartbeat
    return None if heard is None else time.time() - heard


@router.get(
    "/work",
    summary="Say how much there is to retrain",
    dependencies=[needs(Scope.READ, Scope.METRICS, whole_service=True)],
    responses=openapi.answers(
        200,
        "How many detectors wait for a retraining, how many are retrained, and the longest wait.",
        Work,
    )
    | openapi.problems(503),
)
async def work(request: Request) -> Response:
    """Return the retraining work of all detectors. An autoscaler of workers can use it."""
    return answer(await parts(request).stores.due.work())


@router.get(
    "/service",
    summary="Describe what the service runs on",
    dependencies=[needs(Scope.READ, whole_service=True)],
    responses=openapi.answers(200, "Store, workers and API processes.", documents.ServiceAnswer)
    | openapi.problems(503),
)
async def service(request: Request) -> Response:
    """Return the state of the store, the workers and the API processes.

    A process has the age of its latest heartbeat. An API process has the generations it serves.
    """
    app = parts(request)
    workers = await app.stores.leases.workers()
    processes = await app.stores.processes.all()
    return answer(
        documents.ServiceAnswer(
            documents.StoreState(app.watcher.health.redis_up, app.watcher.health.weak),
            [documents.WorkerSeen(worker, age) for worker, age in sorted(workers.items())],
            processes,
        )
    )
