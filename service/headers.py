"""Headers that every answer carries; and answers that are headers alone."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ADDED = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Headers:
    """Adds what keeps answers out of caches and browsers from guessing their type."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *ADDED]
            await send(message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            # What takes GET takes HEAD; the server, which knows what was asked, sends no body.
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, sending if scope["type"] == "http" else send)
