"""Detectors: make, list, describe, delete and retrain them."""

import asyncio
import time
from bisect import bisect_right

import msgspec
from fastapi import APIRouter, Request, Response

from models import ConfigError
from models.config import check_weights
from models.steps import check_steps
from service.api import documents, openapi, request_bodies
from service.api.guard import caller, needs
from service.api.parts import Parts, parts
from service.api.request_bodies import MERGE_PATCH, MOST_CONFIG
from service.api.responses import answer, etag
from service.api.routes.parameters import Name, check_preconditions
from service.api.routes.queries import MOST, PAGED, flag, is_paged, next_page, whole_number
from service.api.status import current, describe, existing, show_own_change
from service.domain.detector import Detector, LastRetraining
from service.domain.detector_config import (
    DetectorConfig,
    changed,
    left_out,
    merged,
    parse,
    with_fields_of,
)
from service.domain.detector_status import BrokenStatus, DetectorStatus, RecentStatus
from service.domain.scope import Scope
from service.domain.trace import trace_id
from service.problems import StoreUnavailable, UnknownDetector, Unprocessable
from service.scoring.vectors import JSON, essence
from service.store.batched_reads import Recent

router = APIRouter(prefix="/v1/detectors", tags=["detectors"])

_POLL_SECONDS = 0.1  # between two reads of the state of a retraining that a client waits for
_HOUR = 3600.0
_CATCH_UP = 50  # most detectors that a listing refreshes itself; polling refreshes the others


@router.put(
    "/{name}",
    summary="Make a detector, or replace its config",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(200, "Its config in full.", DetectorConfig)
    | openapi.answers(201, "Made; its config in full.", DetectorConfig)
    | openapi.problems(409, 412, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(
        DetectorConfig, {"threshold": {"fpr": 0.001}, "retrain": {"min_vectors": 500}}
    )
    | openapi.IF_MATCH_OR_NONE,
)
async def put(request: Request, name: Name) -> Response:
    """Make the detector with this config, or replace its config.

    The body is required. A field that the body leaves out gets its default, so `{}` is a config.
    An existing detector keeps its `score` and its `incident` if the body names none. An entity,
    `t:entity`, needs the template `t`. `If-None-Match: *` changes no existing detector.
    """
    app = parts(request)
    app.check_writable()
    text = await request_bodies.json_text(request, MOST_CONFIG)
    config, kept = affordable(app, parse(text)), left_out(text)

    def decide(stored: Detector | None) -> DetectorConfig:
        check_preconditions(request.headers, None if stored is None else stored.generation)
        return config if stored is None else with_fields_of(config, stored.config, kept)

    created, detector = await app.stores.detectors.write(name, decide, who=caller(request).who)
    await show_own_change(app, name)
    return answer(detector.config.to_dict(), 201 if created else 200)


@router.patch(
    "/{name}",
    summary="Change fields of a detector's config",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(200, "Its config in full.", DetectorConfig)
    | openapi.problems(404, 409, 412, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(
        # A typed client would send the defaults of all fields that the caller leaves out.
        None,
        {"retrain": {"paused": True}},
        others={MERGE_PATCH: openapi.ANY_OBJECT},
    )
    | openapi.IF_MATCH,
)
async def patch(request: Request, name: Name) -> Response:
    """Change the fields that the body names.

    `retrain`, `replay` and `model` are merged field by field. Every other field is replaced whole.
    With the content type `application/merge-patch+json` all fields are merged, and a null gives a
    field its default (RFC 7396).
    """
    app = parts(request)
    app.check_writable()
    text = await request_bodies.json_text(request, MOST_CONFIG, (JSON, MERGE_PATCH))
    change = merged if essence(request.headers.get("content-type")) == MERGE_PATCH else changed

    def decide(stored: Detector | None) -> DetectorConfig:
        if stored is None:
            raise UnknownDetector
        check_preconditions(request.headers, stored.generation)
        return affordable(app, change(stored.config, text))

    _, detector = await app.stores.detectors.write(name, decide, who=caller(request).who)
    await show_own_change(app, name)
    return answer(detector.config.to_dict())


def affordable(app: Parts, config: DetectorConfig) -> DetectorConfig:
    """Return the config. Raises Unprocessable if a training with it would take too many steps."""
    settings = app.settings
    try:
        check_steps(config, min(settings.experience_max_vectors, settings.buffer_max_vectors))
    except ConfigError as error:
        raise Unprocessable(str(error)) from None
    return config


@router.get(
    "",
    summary="List the detectors",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "The status of each.", documents.Detectors)
    | openapi.problems(422, 503),
    openapi_extra={
        "parameters": [
            *PAGED.values(),
            openapi.query(
                "recent", "Add `recent`: the champion's start, the last hour.", type="boolean"
            ),
        ]
    },
)
async def index(request: Request) -> Response:
    """Return the status of every detector that the API key covers, or one page of them, by name."""
    app = parts(request)
    grant, last, with_recent = caller(request), None, flag(request, "recent")
    names = sorted(name for name in await app.stores.detectors.names() if grant.covers(name))
    if is_paged(request):
        limit = whole_number(request, "limit", MOST)
        # `after` may name a detector that was deleted since: the next page begins behind it.
        names = names[bisect_right(names, request.query_params.get("after", "")) :]
        last = names[limit - 1] if len(names) > limit else None
        names = names[:limit]
    detectors = await app.stores.detectors.existing(names)
    behind = [
        detector for detector in detectors if app.champions.lags(detector.name, detector.pointer)
    ]
    for detector in behind[:_CATCH_UP]:
        await app.watcher.follow(detector.name)
    statuses = [describe(app, detector) for detector in detectors]
    if with_recent:
        statuses = await _with_recent(app, statuses)
    return answer({"detectors": statuses} | next_page(last))


async def _with_recent(
    app: Parts, statuses: list[DetectorStatus | BrokenStatus]
) -> list[DetectorStatus | BrokenStatus]:
    """Return the statuses with what happened lately."""
    names, now = [status.name for status in statuses], app.stores.clock.last_known()
    recent = await app.stores.batched.recent(names, now - _HOUR, now)
    return [
        msgspec.structs.replace(status, recent=_recent_status(status, recent[status.name]))
        if isinstance(status, DetectorStatus) and status.name in recent
        else status
        for status in statuses
    ]


def _recent_status(status: DetectorStatus, recent: Recent) -> RecentStatus:
    since = None if status.champion is None else recent.moved_at  # a revocation may leave none
    return RecentStatus(since, recent.rows, recent.alarms)


@router.get(
    "/{name}",
    summary="Describe a detector",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Its status.", DetectorStatus, headers=openapi.ETAG)
    | openapi.problems(404, 503),
)
async def get(request: Request, name: Name) -> Response:
    """Return the detector's status. The ETag is its generation."""
    status = await current(parts(request), name)
    return answer(status, ETag=etag(status.generation))


@router.delete(
    "/{name}",
    summary="Delete a detector with everything that it holds",
    dependencies=[needs(Scope.ADMIN)],
    status_code=204,
    response_class=Response,
    responses=openapi.problems(404, 412, 503),
    openapi_extra=openapi.IF_MATCH,
)
async def delete(request: Request, name: Name) -> Response:
    """Delete the detector with its buffer, versions, events and labels."""
    app = parts(request)
    served, detectors = app.champions.get(name), app.stores.detectors

    def check(generation: int) -> None:
        check_preconditions(request.headers, generation)

    try:
        await detectors.delete(name, who=caller(request).who, check=check)
    except UnknownDetector:
        if served is None:  # another process may still serve it
            await detectors.mark_deleted(name)
            raise
        if await detectors.is_deleted(name, served.uid):
            raise
        await detectors.mark_deleted(name, served.uid)
    await show_own_change(app, name)
    return Response(status_code=204)


@router.post(
    "/{name}/retrain",
    summary="Retrain now with what is buffered",
    dependencies=[needs(Scope.ADMIN)],
    status_code=202,
    responses=openapi.answers(
        202,
        "Queued.",
        documents.RetrainAnswer,
        {"retraining": openapi.EXAMPLES["Retraining"] | {"state": "queued"}, "buffered": 120},
    )
    | openapi.answers(
        200,
        "Finished before `wait` was over.",
        documents.RetrainAnswer,
        openapi.EXAMPLES["LastRetraining"]
        | {"last_retraining": openapi.EXAMPLES["LastRetraining"]},
    )
    | openapi.problems(404, 409, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(
        request_bodies.RetrainOptions,
        {"weights": {"w_prev": 0.2, "w_new": 0.8}, "wait": 30},
        required=False,
    ),
)
async def retrain(request: Request, name: Name) -> Response:
    """Queue a retraining.

    With `wait` (seconds, at most 300) the answer comes once the outcome is final, or 202 when the
    time is over first.
    """
    app = parts(request)
    body = await request_bodies.read(request, request_bodies.RetrainOptions, optional=True)
    try:
        if body.weights is not None:
            check_weights(body.weights)
    except ConfigError as error:
        raise Unprocessable(f"{error}.") from None
    started = time.monotonic()
    ticket = await app.stores.detectors.request_retrain(
        name,
        body.weights,
        who=caller(request).who,
        trace=trace_id(request.headers.getlist("traceparent")),
    )
    last = await _outcome(app, name, ticket, started + body.wait)
    if last is not None:
        await show_own_change(app, name)
        return answer(msgspec.to_builtins(last) | {"last_retraining": last})
    detector = await existing(app, name)
    missing = app.watcher.health.no_worker
    note = f"{detector.retraining.state}; {missing}" if missing else msgspec.UNSET
    queued = documents.RetrainAnswer(detector.retraining, detector.buffered, note)
    return answer(queued, 202)


async def _outcome(app: Parts, name: str, ticket: int, deadline: float) -> LastRetraining | None:
    """Return the outcome of the requested retraining, None if the deadline passes first."""
    while time.monotonic() < deadline:
        await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        try:
            detector = await app.stores.detectors.get(name)
        except StoreUnavailable:
            continue  # the retraining goes on when the store is back
        if detector is None:
            raise UnknownDetector("The detector was deleted.")
        if detector.served >= ticket and detector.retraining.state == "idle":
            return detector.last_retraining
    return None
