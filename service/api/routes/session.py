"""Login and logout of a browser."""

import time

from fastapi import APIRouter, Request, Response

from service.api import documents, openapi, request_bodies
from service.api.guard import open_session, open_to_all
from service.api.parts import parts, root_path
from service.api.responses import answer, problem_response
from service.domain import session
from service.problems import StoreUnavailable, Unprocessable

router = APIRouter(prefix="/v1/session", tags=["keys"])


@router.post(
    "",
    summary="Log a browser in",
    status_code=201,
    dependencies=[open_to_all()],
    responses=openapi.answers(201, "Logged in. A cookie is set.", documents.SessionAnswer)
    | openapi.problems(401, 413, 415, 422, 429, 503),
    openapi_extra=openapi.json_body(request_bodies.Login, {"key": "anm_..."}),
)
async def post(request: Request) -> Response:
    """Check an API key and set a cookie that replaces it for eight hours."""
    app = parts(request)
    login = await request_bodies.read(request, request_bodies.Login)
    if not app.access.guarded:
        raise Unprocessable("The service has no API keys, so nobody needs to log in.")
    grant = app.access.authenticate(b"Bearer " + login.key.encode())
    cookie = session.issue(grant, time.time())
    document = {"csrf": session.csrf(cookie, grant), "scopes": sorted(grant.scopes)}
    response = answer(document, 201)
    response.set_cookie(
        session.COOKIE,
        cookie,
        max_age=session.SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path=f"{root_path(request)}/",
    )
    return response


@router.delete(
    "",
    summary="Log a browser out",
    status_code=204,
    dependencies=[open_to_all()],
    response_class=Response,
    responses={204: {"description": "Logged out. The cookie is removed."}, **openapi.problems(503)},
)
async def delete(request: Request) -> Response:
    """Remove the cookie, and end the session for every copy of it."""
    app, response = parts(request), Response(status_code=204)
    try:
        if (found := open_session(request)) is not None:
            cookie, grant = found
            await app.stores.api_keys.end_session(grant.id, session.name(cookie))
            await app.access.refresh(app.stores.api_keys)
    except StoreUnavailable as problem:
        response = problem_response(problem)  # this browser at least is logged out
    response.delete_cookie(
        session.COOKIE, path=f"{root_path(request)}/", httponly=True, samesite="lax"
    )
    return response
