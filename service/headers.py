"""Headers that every answer carries; and answers that are headers alone."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

    A page brings a policy of its own. Answers of the lane carry `ADDED` alone: they are to POST
    requests with a JSON or binary body, which no other site's page can make a browser send.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                own = any(name.lower() == _POLICY[0] for name, _ in given)
                message["headers"] = [*given, *ADDED, *(() if own else (_POLICY,))]
            await send(message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            # What takes GET takes HEAD; the server, which knows what was asked, sends no body.
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, sending if scope["type"] == "http" else send)
