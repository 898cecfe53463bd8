"""Guards of routes. Every route declares in `dependencies` its scope, or that it needs none."""

import hmac
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute

from service.api import openapi
from service.api.access import allow
from service.api.middleware import lower_body_bound
from service.api.parts import parts
from service.domain import session
from service.domain.api_key import Grant
from service.domain.scope import Scope
from service.problems import Forbidden, Unauthenticated, Unprocessable

_READING = {"GET", "HEAD"}  # methods that change nothing


class Guard:
    """Lets a request pass if its API key has `scope` or one of `others`, and covers the detector.

    If `scope` is None, no key is needed. With `whole_service` the key must be for all
    detectors.
    """

    def __init__(self, scope: Scope | None, *others: Scope, whole_service: bool) -> None:
        self.scope = scope
        self.others = others
        self.whole_service = whole_service

    async def __call__(self, request: Request) -> None:
        """Raise Unauthenticated, TooManyRequests, Forbidden, UnknownDetector or Unprocessable."""
        if self.scope is None:
            return
        grant = self._grant_of(request, self.scope)
        scope = next((other for other in self.others if other in grant.scopes), self.scope)
        allow(grant, scope, request.path_params.get("name"))
        if self.whole_service and grant.detectors is not None:
            raise Forbidden(self.scope, "This request needs an API key that covers all detectors.")
        asked = [parameter for parameter, _ in request.query_params.multi_items()]
        if len(asked) > len(set(asked)):
            raise Unprocessable("A parameter of the query is given more than once.")
        if grant.max_body_bytes is not None:
            lower_body_bound(request.scope, grant.max_body_bytes)
        request.state.grant = grant

    def _grant_of(self, request: Request, scope: Scope) -> Grant:
        access, presented = parts(request).access, _presented_key(request)
        found = None if presented is not None else open_session(request)
        if found is None:
            return access.authenticate(presented)
        cookie, grant = found
        request.state.session = cookie
        access.with_rate_token(grant)
        sent = request.headers.get(session.CSRF_HEADER, "")
        if request.method not in _READING and not hmac.compare_digest(
            sent.encode(), session.csrf(cookie, grant).encode()
        ):
            raise Forbidden(
                scope, "A change by a logged-in browser needs the header `X-CSRF-Token`."
            )
        return grant


class LoggedIn(NamedTuple):
    """A browser's session: the CSRF token for its pages, and the scopes of its key."""

    csrf: str
    scopes: frozenset[Scope]


def logged_in(request: Request) -> LoggedIn | None:
    """Return the session of the request, None if it has none."""
    found = open_session(request)
    return found and LoggedIn(session.csrf(*found), found[1].scopes)


def open_session(request: Request) -> tuple[str, Grant] | None:
    """Return the cookie of the request's session and what its key allows, None if it has none.

    A browser sends several cookies of one name if their paths differ. The first valid one counts.
    """
    access = parts(request).access
    for header in request.headers.getlist("cookie") if access.guarded else ():
        for pair in header.split(";"):
            name, _, cookie = pair.strip().partition("=")
            if name == session.COOKIE and (grant := access.of_session(cookie)) is not None:
                return cookie, grant
    return None


def still_allowed(request: Request) -> bool:
    """Return whether the key or the session that the guard let pass is still valid."""
    access, cookie = parts(request).access, getattr(request.state, "session", None)
    if cookie is not None:
        return access.of_session(cookie) is not None
    return access.holds(caller(request))


def needs(scope: Scope, *others: Scope, whole_service: bool = False) -> Any:
    """Return the dependency of a route that needs `scope`, or one of `others`."""
    return Depends(Guard(scope, *others, whole_service=whole_service))


def open_to_all() -> Any:
    """Return the dependency of a route that needs no key."""
    return Depends(Guard(None, whole_service=False))


def caller(request: Request) -> Grant:
    """Return what the API key of this request allows. The guard has let the request pass."""
    grant: Grant = request.state.grant
    return grant


def guarded_routes(router: APIRouter | FastAPI) -> Iterator[tuple[APIRoute, Guard]]:
    """Yield every route with its guard. Raises TypeError for a route without exactly one guard."""
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from guarded_routes(inner)
            continue
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route}: not a route that can declare a scope")
        guards = [
            dependency.dependency
            for dependency in route.dependencies
            if isinstance(dependency.dependency, Guard)
        ]
        if len(guards) != 1:
            raise TypeError(f"{route.path}: a route must declare its scope exactly once")
        yield route, guards[0]


def with_scopes(app: FastAPI, described: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document with the scope of each route, and the problems 401, 403, 429."""
    schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["key"] = {"type": "http", "scheme": "bearer", "description": "An API key."}
    for route, guard in guarded_routes(app):
        if guard.scope is None or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = described["paths"][route.path][method.lower()]
            scopes = (guard.scope, *guard.others)
            operation["security"] = [{"key": [scope.value]} for scope in scopes]
            refusals = openapi.problems(401, 403, 429)
            operation["responses"] = {
                str(status): answer for status, answer in refusals.items()
            } | operation["responses"]
    return described


def _presented_key(request: Request) -> bytes | None:
    """Return the key in the form of an `Authorization` header, None if no key is sent.

    Raises Unauthenticated if more than one key is sent. Credentials for a proxy (Basic) beside an
    `X-API-Key` are ignored.
    """
    keys = [b"Bearer " + value for name, value in request.headers.raw if name == b"x-api-key"]
    keys += [
        value
        for name, value in request.headers.raw
        if name == b"authorization" and not (keys and value[:6].lower() == b"basic ")
    ]
    if len(keys) > 1:
        raise Unauthenticated(sent=True)
    return keys[0] if keys else None
