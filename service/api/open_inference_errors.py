"""Errors of paths under `/v2`, in the form of the Open Inference Protocol."""

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import CONTENT_TYPE


class ProtocolErrors:
    """Turns problems of paths under `/v2` into `{"error": "..."}`, as the protocol demands.

    Code that raises a problem need not know the protocol. Row and column are added to the text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or (path != "/v2" and not path.startswith("/v2/")):
            await self.app(scope, receive, send)
            return
        start: Message | None = None

        async def sending(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message  # sent with the body, because it names the length of the new body
                return
            if start is not None:
                body = _protocol_error(message["body"])
                kept = [(k, v) for k, v in start["headers"] if k not in _REPLACED]
                length = (b"content-length", str(len(body)).encode())
                start["headers"] = [(b"content-type", b"application/json"), length, *kept]
                await send(start)
                start, message = None, {**message, "body": body}
            await send(message)

        await self.app(scope, receive, sending)


_REPLACED = (b"content-type", b"content-length")


def _is_problem(message: Message) -> bool:
    return (b"content-type", CONTENT_TYPE.encode()) in message["headers"]


def _protocol_error(body: bytes) -> bytes:
    problem = orjson.loads(body)
    place = [f"{axis} {problem[axis]}" for axis in ("row", "column") if axis in problem]
    detail = f"{problem['detail']} ({', '.join(place)})" if place else problem["detail"]
    return orjson.dumps({"error": detail})
