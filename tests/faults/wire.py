"""HTTP/1.1 as bytes on one connection, because a client library would hide what tests look at."""

import asyncio
import json
from typing import Any, NamedTuple, Self


class Reset(Exception):  # noqa: N818 - it states what happened
    """The connection ended before the answer did."""


class Answer(NamedTuple):
    """One answer, undecoded."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One connection to a port of this machine. It never repeats a request and never reconnects."""

    def __init__(self, port: int, seconds: float = 30.0) -> None:
        self._port = port
        self._seconds = seconds
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.closed = False

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        self.closed = True
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request and return its answer. Raises Reset if the answer does not come whole."""
        fields = {"host": "localhost", "content-length": str(len(body))}
        if body:
            fields["content-type"] = "application/json"
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return await self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def send(self, request: bytes) -> Answer:
        """Send bytes and return the answer to them."""
        if self._writer is None:
            raise Reset("the connection is closed")
        try:
            async with asyncio.timeout(self._seconds):
                self._writer.write(request)
                await self._writer.drain()
                return await self._answer()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            self.close()
            raise Reset(repr(error)) from error

    async def _answer(self) -> Answer:
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(first.split(" ", 2)[1]), headers, body)
