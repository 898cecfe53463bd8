"""Headers that every answer carries; and answers that are headers alone."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import CONTENT_TYPE, BadRequest, Problem, TooLarge, UnsupportedMedia

ADDED = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# An answer is data: shown as a page it may load and run nothing, and be framed by nobody.
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Headers:
    """Adds what keeps answers out of caches, and browsers from making more of them than data.

    A page brings a policy of its own, a static file its own rule for caches. Answers of the lane
    carry `ADDED` alone: they are to POST requests with a JSON or binary body, which no other site's
    page can make a browser send.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                own = {name.lower() for name, _ in given}
                message["headers"] = [
                    *given, *(pair for pair in (*ADDED, _POLICY) if pair[0] not in own)
                ]  # fmt: skip
            await send(message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            # What takes GET takes HEAD; the server, which knows what was asked, sends no body.
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, sending if scope["type"] == "http" else send)


_BOUND = "anamnesis.body_bound"  # in the scope of a request: a list of one number

# Up to so many times the limit the server reads on and discards, so that a client that sends
# first and reads later gets the answer; beyond that the connection closes under it.
_DISCARDED = 16


class BodyLimit:
    """Refuses bodies over `most` bytes, told or in chunks, and compressed ones."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = _refusal(dict(scope["headers"]), self.most)
        if refusal is not None:
            await refuse(refusal, send)
            return
        bound = [self.most]
        scope = {**scope, _BOUND: bound}
        seen = 0
        begun = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body") or b"")
            if seen > bound[0]:
                raise _too_large(bound[0])
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except TooLarge as problem:
            if begun:
                raise
            await refuse(problem, send)


def lower(scope: Scope, most: int) -> None:
    """Take at most `most` bytes of this request's body; TooLarge where more are announced."""
    bound = scope[_BOUND]
    bound[0] = min(bound[0], most)
    if (refusal := _refusal(dict(scope["headers"]), bound[0])) is not None:
        raise refusal


def _refusal(headers: dict[bytes, bytes], most: int) -> Problem | None:
    """Return what is wrong with a body as its headers describe it, None where nothing is."""
    length = headers.get(b"content-length", b"0")
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
    body = problem.to_bytes()
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
