"""The quarantine, with the decisions of people about it, and the drift of live traffic."""

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi, request_bodies
from service.api.guard import caller, needs
from service.api.parts import parts
from service.api.responses import answer
from service.api.routes.parameters import Name
from service.api.routes.queries import PAGED, listing
from service.api.status import drift as drift_now
from service.api.status import existing
from service.domain.drift_report import Drift
from service.domain.scope import Scope
from service.domain.words import decode
from service.problems import no_such

router = APIRouter(prefix="/v1/detectors/{name}", tags=["review"])

_ROWS_SHOWN = 1000


@router.get(
    "/quarantine",
    summary="List what is held back",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Oldest first.", documents.Quarantine)
    | openapi.problems(404, 422, 503),
    openapi_extra={"parameters": list(PAGED.values())},
)
async def quarantine(request: Request, name: Name) -> Response:
    """Return the entries that wait for a person.

    An entry is an experience whose training was rejected or failed, or rows that admission held
    back.
    """
    app = parts(request)
    await existing(app, name)
    waiting = await app.stores.quarantine.list(name)
    return answer(listing(request, "quarantine", waiting, lambda entry: entry.id))


@router.get(
    "/quarantine/{entry}",
    summary="Show rows that are held back",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "At most 1,000 rows.", documents.QuarantinedRows)
    | openapi.problems(404, 503),
)
async def rows(request: Request, name: Name, entry: str) -> Response:
    """Return the first 1,000 vectors of an entry of kind `rows`."""
    app = parts(request)
    config = (await existing(app, name)).row_config
    X = await app.stores.quarantine.vectors(name, entry)
    words = await app.stores.words.all(name) if config.words else {}
    return answer({"id": entry, "vectors": decode(X[:_ROWS_SHOWN].tolist(), config, words)})


@router.post(
    "/quarantine/{entry}",
    summary="Release or discard what is held back",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(200, "Decided.", documents.Decided)
    | openapi.problems(404, 409, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(request_bodies.Decide, {"decision": "release"}),
)
async def decide(request: Request, name: Name, entry: str) -> Response:
    """Send the entry's vectors to the buffer (release), or delete them (discard)."""
    app = parts(request)
    app.check_writable()
    decision = (await request_bodies.read(request, request_bodies.Decide)).decision
    await existing(app, name)
    if len(entry) > 64 or not entry.isascii() or not entry.isprintable():
        raise no_such("quarantine entry", ".../quarantine")
    vectors = await app.stores.quarantine.decide(name, entry, decision, who=caller(request).who)
    return answer({"id": entry, "decision": decision, "vectors": vectors})


@router.get(
    "/drift",
    summary="Describe the drift of live traffic",
    dependencies=[needs(Scope.READ)],
    responses=openapi.answers(200, "Statistic, threshold and verdict per test.", Drift)
    | openapi.problems(404, 503),
)
async def drift(request: Request, name: Name) -> Response:
    """Return the drift state, the tests that it follows from, and the worst features."""
    app = parts(request)
    return answer(drift_now(await existing(app, name), app.watcher.health.no_worker))
