"""Audit trails: who changed what, and whether an entry was altered later."""

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi
from service.api.guard import needs
from service.api.parts import parts
from service.api.responses import answer
from service.api.routes.parameters import Name
from service.api.routes.queries import whole_number
from service.api.status import existing
from service.domain.audit_chain import broken
from service.domain.scope import Scope
from service.json_value import JsonObject
from service.problems import Unprocessable
from service.store.audit_trail import PAGE, SHARED_TRAILS

router = APIRouter(prefix="/v1", tags=["audit"])


_KEY_ENTRY: JsonObject = openapi.EXAMPLES["AuditEntry"] | {
    "from": None,
    "to": {"name": "press 7", "scopes": ["ingest"], "detectors": ["pump-7"]},
    "action": "key created",
    "who": "key:2c26b46b68ffc68f",
    "why": "",
    "key": "9f86d081884c7d65",
}
_AFTER = openapi.query("after", "Return only entries with a greater number.", minimum=0, default=0)
_LIMIT = openapi.query("limit", "The largest number of entries.", maximum=PAGE, default=PAGE)
_OF = openapi.query(
    "of", "Whose audit trail.", type="string", enum=list(SHARED_TRAILS), default="keys"
)


def _page(example: JsonObject) -> openapi.Responses:
    page = {"audit": [example], "broken": None, "next": 8}
    return openapi.answers(200, "One page, oldest entry first.", documents.AuditPage, page)


@router.get(
    "/detectors/{name}/audit",
    summary="Export the audit trail of a detector",
    dependencies=[needs(Scope.ADMIN)],
    responses=_page(openapi.EXAMPLES["AuditEntry"]) | openapi.problems(404, 422, 503),
    openapi_extra={"parameters": [_AFTER, _LIMIT]},
)
async def audit_of_detector(request: Request, name: Name) -> Response:
    """Return up to 1,000 entries.

    `broken` is the number of the first entry of the page whose hash does not match the entry
    before it. It is null if all match. To get the next page, send `next` as `after`. `next` is
    null on the last page.
    """
    after = whole_number(request, "after", 0, 10**15, least=0)
    await existing(parts(request), name)
    return await _entries(request, name, after)


@router.get(
    "/audit",
    summary="Export the audit trail of the API keys or of the templates",
    dependencies=[needs(Scope.ADMIN, whole_service=True)],
    responses=_page(_KEY_ENTRY) | openapi.problems(422, 503),
    openapi_extra={"parameters": [_AFTER, _LIMIT, _OF]},
)
async def audit_of_keys(request: Request) -> Response:
    """Return up to 1,000 entries, in the form of a detector's audit trail."""
    trail = request.query_params.get("of", "keys")
    if trail not in SHARED_TRAILS:
        raise Unprocessable(f"`of` in the query is one of {', '.join(SHARED_TRAILS)}.")
    after = whole_number(request, "after", 0, 10**15, least=0)
    return await _entries(request, None, after, trail)


async def _entries(request: Request, name: str | None, after: int, trail: str = "keys") -> Response:
    limit = whole_number(request, "limit", PAGE, PAGE)
    entries = await parts(request).stores.audit.entries(
        name, shared=trail, after=after, limit=limit
    )
    following = entries[-1].seq if len(entries) == limit else None
    shown = [entry.to_dict() for entry in entries]
    return answer({"audit": shown, "broken": broken(entries), "next": following})
