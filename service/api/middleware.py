"""Middleware: adds headers to every answer, and bounds the bytes of request bodies."""

import re
import secrets
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import log
from service.api.body_budget import FREE_BYTES, BodyBudget
from service.problems import BadRequest, Busy, Problem, TooLarge, UnsupportedMedia
from service.scoring.answers import as_problem

ADDED = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Answers are data. A browser that shows one as a page must load, run and frame nothing.
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


# A request id that a client may choose: only characters that are harmless in logs and headers.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def _request_id(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the client's request id if it is valid, else a new one."""
    given = dict(headers).get(b"x-request-id", b"")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()


class Headers:
    """Gives each request an id, and adds headers against caching answers or showing them as pages.

    A header that the answer has already stays: pages have their own policy, static files their own
    cache rule. Answers of the lane get only `ADDED`. They answer POST requests with a JSON or
    binary body, which a page of another site cannot make a browser send.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        log.add(request_id=request_id.decode())

        head_only = scope["method"] == "HEAD"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [*message.get("headers", ()), (b"x-request-id", request_id)]
                given_names = {name.lower() for name, _ in given}
                message["headers"] = [
                    *given, *(pair for pair in (*ADDED, _POLICY) if pair[0] not in given_names)
                ]  # fmt: skip
                await send(message)
                if head_only:
                    # The end of the answer also ends a stream, which would go on for nobody.
                    await send({"type": "http.response.body"})
            elif not head_only:
                await send(message)

        if head_only:
            # Every GET route answers HEAD too.
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, sending)


# A body that is too large is read and discarded up to this many times the limit. So a client that
# sends everything before it reads still gets the answer. Beyond that the connection is closed.
_DISCARDED = 16

_BOUND = "anamnesis.body_bound"  # the key of a request's `BodyBound` in its ASGI scope


@dataclass(slots=True)
class BodyBound:
    """The largest number of bytes that the body of one request may have."""

    most: int


class BodyLimit:
    """Refuses bodies over `most` bytes (announced or chunked) and compressed bodies."""

    def __init__(self, app: ASGIApp, most: int, budget: BodyBudget) -> None:
        self.app = app
        self.most = most
        self.budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _refusal_by_headers(scope["headers"], self.most)
        if refusal is not None:
            await refuse(refusal, send)
            return
        bound = BodyBound(self.most)
        scope = {**scope, _BOUND: bound}
        body = _Body(scope, receive, bound, self.budget)
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, body.receive, watched)
        except (TooLarge, Busy) as problem:
            if begun:
                raise
            await refuse(problem, send)
        finally:
            body.close()


class _Body:
    """The body of one request. Its bytes count against its own bound and the process's budget."""

    def __init__(
        self, scope: Scope, receive: Receive, bound: BodyBound, budget: BodyBudget
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._bound = bound
        self._budget = budget
        self._announced = int(dict(scope["headers"]).get(b"content-length", b"0"))
        self._seen = 0
        self._taken = 0
        self._sender = ""

    async def receive(self) -> Message:
        """Return the next part. Raises TooLarge, or Busy if there is no room."""
        # The route reads the body after its guard, so the sender is known by now.
        if not self._seen:
            await self._take_budget(self._announced)
        message = await self._receive()
        self._seen += len(message.get("body") or b"")
        if self._seen > self._bound.most:
            raise _too_large(self._bound.most)
        await self._take_budget(self._seen)
        return message

    async def _take_budget(self, size: int) -> None:
        if size <= max(FREE_BYTES, self._taken):
            return
        if not self._taken:
            grant = self._scope.get("state", {}).get("grant")
            self._sender = grant.id if grant is not None else ""
        await self._budget.take(self._sender, size - self._taken)
        self._taken = size

    def close(self) -> None:
        """Release the bytes that the budget holds for this body."""
        self._budget.give(self._sender, self._taken)
        self._taken = 0


def lower_body_bound(scope: Scope, most: int) -> None:
    """Lower the bound of this request's body to `most` bytes. Raises TooLarge for a larger body.

    `scope` is the request's ASGI scope. A bound that is lower already stays.
    """
    bound: BodyBound = scope[_BOUND]
    bound.most = min(bound.most, most)
    if (refusal := _refusal_by_headers(scope["headers"], bound.most)) is not None:
        raise refusal


def _refusal_by_headers(headers: list[tuple[bytes, bytes]], most: int) -> Problem | None:
    """Return the problem with a body that its headers already show, None if they show none."""
    by_name = dict(headers)
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and codings != [b"chunked"]:
        problem: Problem = BadRequest("A body may have no Transfer-Encoding except `chunked`.")
        # A proxy may have found another end of this request, and so another start of the next.
        problem.headers["Connection"] = "close"
        return problem
    length = by_name.get(b"content-length", b"0").strip()
    if not length.isdigit():
        return BadRequest("Content-Length must be a number.")
    if by_name.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        # Compressed bytes could be read as binary vectors by mistake.
        return UnsupportedMedia("A body must have no Content-Encoding. Send it uncompressed.")
    if len(length) <= 18 and int(length) <= most:
        return None
    problem = _too_large(most)
    if len(length) > 18 or int(length) > _DISCARDED * most:
        problem.headers["Connection"] = "close"
    return problem


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"A body may have at most {most} bytes.", limit=most)


async def refuse(problem: Problem, send: Send) -> None:
    """Answer a request with the problem."""
    reply = as_problem(problem)
    start = {"status": reply.status, "headers": reply.all_headers()}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": reply.body})
