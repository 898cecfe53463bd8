"""API keys: make, list and revoke them."""

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi, request_bodies
from service.api.guard import caller, needs
from service.api.parts import Parts, parts
from service.api.responses import answer
from service.api.routes.queries import PAGED, listing
from service.domain.api_key import describe, new_secret
from service.domain.scope import Scope
from service.problems import Conflict, Unprocessable

router = APIRouter(prefix="/v1/keys", tags=["keys"])

_ASKED = {"name": "press 7", "scopes": ["ingest", "score"], "detectors": ["pump-7"]}


@router.get(
    "",
    summary="List the API keys",
    dependencies=[needs(Scope.ADMIN, whole_service=True)],
    responses=openapi.answers(200, "Oldest first.", documents.ApiKeys) | openapi.problems(422, 503),
    openapi_extra={"parameters": list(PAGED.values())},
)
async def index(request: Request) -> Response:
    """Return what each stored key allows. The store holds only hashes of the keys."""
    _, grants = await parts(request).stores.api_keys.read()
    keys = [describe(grant) for grant in grants]
    return answer(listing(request, "keys", keys, lambda key: str(key["id"])))


@router.post(
    "",
    summary="Make an API key",
    status_code=201,
    dependencies=[needs(Scope.ADMIN, whole_service=True)],
    responses=openapi.answers(
        201,
        "Made. The key is shown only here.",
        documents.ApiKey,
        {"key": "anm_...", **openapi.EXAMPLES["ApiKey"]},
    )
    | openapi.problems(409, 413, 415, 422, 503),
    openapi_extra=openapi.json_body(request_bodies.NewKey, _ASKED),
)
async def post(request: Request) -> Response:
    """Make a key. Without `detectors` it covers all detectors."""
    app = parts(request)
    app.check_writable()
    new_key = await request_bodies.read(request, request_bodies.NewKey)
    if not new_key.scopes:
        raise Unprocessable(f"scopes: give at least one of {', '.join(Scope)}.")
    secret = new_secret()
    grant = new_key.grant(secret.encode())
    if not app.access.guarded and (Scope.ADMIN not in grant.scopes or grant.detectors is not None):
        raise Conflict("The first key must have the scope admin and cover all detectors.")
    created = await app.stores.api_keys.create(grant, who=caller(request).who)
    await _show_own_change(app)
    return answer({"key": secret, **describe(created)}, 201)


@router.delete(
    "/{key}",
    summary="Revoke an API key",
    status_code=204,
    dependencies=[needs(Scope.ADMIN, whole_service=True)],
    response_class=Response,
    responses=openapi.problems(404, 503),
)
async def delete(request: Request, key: str) -> Response:
    """Revoke the key. This process refuses it at once, other processes within 2 s."""
    app = parts(request)
    await app.stores.api_keys.revoke(key, who=caller(request).who)
    await _show_own_change(app)
    return Response(status_code=204)


async def _show_own_change(app: Parts) -> None:
    """Read the keys again, so that this process applies its own change at once."""
    await app.access.refresh(app.stores.api_keys)
