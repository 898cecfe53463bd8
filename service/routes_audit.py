"""The audit trail of a detector: who changed what, and whether anything was altered since."""

from fastapi import APIRouter, Request, Response

from service import openapi
from service.audit import PAGE, broken
from service.grants import Scope
from service.guard import needs
from service.parts import parts
from service.problems import Unprocessable
from service.responses import answer
from service.routes_scoring import Name
from service.status import existing

router = APIRouter(prefix="/v1/detectors/{name}", tags=["audit"])

_ENTRY = {
    "seq": 7,
    "at": 1763726400000,
    "from": 2,
    "to": 3,
    "action": "promoted",
    "who": "worker:host-17-0a1b2c",
    "why": "retraining",
    "previous": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "hash": "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
}


@router.get(
    "/audit",
    summary="Export the audit trail",
    dependencies=[needs(Scope.ADMIN)],
    responses=openapi.answers(
        200, "Oldest first, a page at a time.", {"audit": [_ENTRY], "broken": None, "next": 8}
    )
    | openapi.problems(404, 422, 503),
    openapi_extra={
        "parameters": [openapi.query("after", "Only entries with a greater number.", default=0)]
    },
)
async def audit(request: Request, name: Name) -> Response:
    """Return up to 1,000 entries.

    `broken` is the number of the first entry of the page that does not follow from the one before
    it, null where all do; `next` is what `after` is to be for the next page, null on the last.
    """
    app = parts(request)
    text = request.query_params.get("after", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Unprocessable("`after` in the query is a whole number.")
    await existing(app, name)
    entries = await app.stores.audit.entries(name, after=int(text), limit=PAGE)
    following = entries[-1]["seq"] if len(entries) == PAGE else None
    return answer({"audit": entries, "broken": broken(entries), "next": following})
