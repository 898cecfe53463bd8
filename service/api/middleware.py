"""Adds the headers of every answer, and bounds request bodies."""

import re
import secrets

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
# An answer is data: a browser that shows it as a page must load, run and frame nothing.
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


# A client's name for a request: only characters that are harmless in a log and in a header.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def _request_id(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the client's valid name for the request, or else a new one."""
    given = dict(headers).get(b"x-request-id", b"")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()


class Headers:
    """Names the request, and adds headers against caching and against showing answers as pages.

    A page has its own policy, and a static file its own rule for caches. Answers of the lane carry
    only `ADDED`: they belong to POST requests with a JSON or binary body, which a page of another
    site cannot make a browser send.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = _request_id(scope["headers"])
        log.add(request_id=name.decode())

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [*message.get("headers", ()), (b"x-request-id", name)]
                own = {name.lower() for name, _ in given}
                message["headers"] = [
                    *given, *(pair for pair in (*ADDED, _POLICY) if pair[0] not in own)
                ]  # fmt: skip
            await send(message)

        if scope["method"] == "HEAD":
            # A route that takes GET takes HEAD too; the server then sends no body.
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, sending)


_BOUND = "anamnesis.body_bound"  # in the scope of a request: a list of one number

# Up to so many times the limit the server reads the body and discards it, so that a client that
# sends everything before it reads still gets the answer. Beyond that the connection is closed.
_DISCARDED = 16


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
        refusal = _refusal(scope["headers"], self.most)
        if refusal is not None:
            await refuse(refusal, send)
            return
        bound = [self.most]
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
    """The body of one request: counted against its own bound and against the budget of all."""

    def __init__(
        self, scope: Scope, receive: Receive, bound: list[int], budget: BodyBudget
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
        """Return the next part; raises TooLarge, and Busy if there is no room."""
        # The sender is known once the route's guard has passed the request.
        if not self._seen:
            await self._take(self._announced)
        message = await self._receive()
        self._seen += len(message.get("body") or b"")
        if self._seen > self._bound[0]:
            raise _too_large(self._bound[0])
        await self._take(self._seen)
        return message

    async def _take(self, size: int) -> None:
        if size <= max(FREE_BYTES, self._taken):
            return
        if not self._taken:
            grant = self._scope.get("state", {}).get("grant")
            self._sender = grant.id if grant is not None else ""
        await self._budget.take(self._sender, size - self._taken)
        self._taken = size

    def close(self) -> None:
        """Release the body."""
        self._budget.give(self._sender, self._taken)
        self._taken = 0


def lower(scope: Scope, most: int) -> None:
    """Take at most `most` bytes of this request's body; TooLarge if more are announced."""
    bound = scope[_BOUND]
    bound[0] = min(bound[0], most)
    if (refusal := _refusal(scope["headers"], bound[0])) is not None:
        raise refusal


def _refusal(given: list[tuple[bytes, bytes]], most: int) -> Problem | None:
    """Return what is wrong with a body as its headers describe it, None where nothing is."""
    headers = dict(given)
    codings = [value.strip().lower() for name, value in given if name == b"transfer-encoding"]
    if codings and codings != [b"chunked"]:
        return BadRequest("A body is sent in chunks, or as it is: no other Transfer-Encoding.")
    length = headers.get(b"content-length", b"0").strip()
    if not length.isdigit():
        return BadRequest("Content-Length is not a number.")
    if headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        # Taken for what they are not, compressed bytes could pass as vectors.
        return UnsupportedMedia("A body is sent without a Content-Encoding.")
    if len(length) <= 18 and int(length) <= most:
        return None
    problem = _too_large(most)
    if len(length) > 18 or int(length) > _DISCARDED * most:
        problem.headers["Connection"] = "close"
    return problem


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"A body has at most {most} bytes.", limit=most)


async def refuse(problem: Problem, send: Send) -> None:
    """Answer a request with the problem."""
    reply = as_problem(problem)
    start = {"status": reply.status, "headers": reply.fields()}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": reply.body})
