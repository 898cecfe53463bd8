"""Bounds on what a request may bring, enforced before it is read into memory."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import CONTENT_TYPE, BadRequest, Problem, TooLarge

# Up to so many times the limit the server reads on and discards, so that a client that sends
# first and reads later gets the answer; beyond that the connection closes under it.
_DISCARDED = 16


class BodyLimit:
    """Refuses bodies over `most` bytes, whether they say their length or come in chunks."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if not length.isdigit():
            await _refuse(BadRequest("Content-Length is not a number."), send)
            return
        problem = TooLarge(f"A body has at most {self.most} bytes.", limit=self.most)
        if len(length) > 18 or int(length) > self.most:
            if len(length) > 18 or int(length) > _DISCARDED * self.most:
                problem.headers["Connection"] = "close"
            await _refuse(problem, send)
            return
        seen = 0
        begun = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body") or b"")
            if seen > self.most:
                raise problem
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except TooLarge:
            if begun:
                raise
            await _refuse(problem, send)


async def _refuse(problem: Problem, send: Send) -> None:
    body = problem.to_bytes()
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
