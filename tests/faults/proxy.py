"""A proxy between the service and its store that can delay, stall, reset or refuse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class Proxy:
    """Forwards a unix socket to another; its treatment of the bytes can change at any time."""

    def __init__(self, path: Path, upstream: Path) -> None:
        self.path = path
        self.upstream = upstream
        self.delay = 0.0  # seconds before each piece is passed on
        self.passing = asyncio.Event()  # cleared to stall: no byte passes until it is set
        self.passing.set()
        self.reset_replies = 0  # the number of next replies that are cut in the middle
        self.forwarded = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def open(self) -> None:
        """Begin to listen."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    def cut(self) -> None:
        """Drop every connection, and refuse new ones until `open`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        for writer in tuple(self._open):
            writer.transport.abort()

    async def close(self) -> None:
        """Drop every connection, and wait until nothing is forwarded any more."""
        self.passing.set()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # `cut` may be called before this begins, or while the store is being reached.
        if self._server is None:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            to_store = await asyncio.open_unix_connection(str(self.upstream))
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(to_store[1])
        if writer.transport.is_closing():
            to_store[1].transport.abort()
        for source, target, replies in (
            (reader, to_store[1], False),
            (to_store[0], writer, True),
        ):
            task = asyncio.create_task(self._forward(source, target, replies=replies))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while piece := await source.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self.passing.wait()
                if replies and self.reset_replies:
                    self.reset_replies -= 1
                    target.write(piece[: len(piece) // 2])
                    await target.drain()
                    break
                target.write(piece)
                await target.drain()
                self.forwarded += len(piece)
        target.transport.abort()
        self._open.discard(target)


@contextlib.asynccontextmanager
async def proxied(path: Path, upstream: Path) -> AsyncIterator[Proxy]:
    """Forward `path` to `upstream` until the end of the block."""
    proxy = Proxy(path, upstream)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
