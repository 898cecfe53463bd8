"""One API process: uvicorn on a listening socket that its parent opened and all siblings share."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Generator, Iterable

import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.fast_lane.connection import HttpProtocol
from service.settings import Settings

_SWEEP_TICKS = 5  # of 0.1 s between two looks at slow connections


class Server(uvicorn.Server):
    """uvicorn, ending with status 0 once it has drained.

    uvicorn would raise the signal anew after draining; a supervisor (ours, systemd's, an
    orchestrator's) would read that as a crash.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Let SIGTERM and SIGINT ask for a drain, and a second SIGINT for an end without one."""
        before = {
            sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; what lives as long as the process is then left out of garbage collections."""
        await super().startup(sockets)
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and let go of what was kept."""
        if isinstance(self.config.app, FastAPI) and hasattr(self.config.app.state, "parts"):
            self.config.app.state.parts.changes.close()
        await super().shutdown(sockets)
        gc.unfreeze()

    async def on_tick(self, counter: int) -> bool:
        """Look after slow connections, too."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            # With the fast lane off the connections are uvicorn's own, which looks after them.
            ours = [one for one in self.server_state.connections if isinstance(one, HttpProtocol)]
            for connection in ours:
                connection.sweep(now)
            if ours:
                _shed(ours, ours[0].settings.unsent_max_bytes)
        return await super().on_tick(counter)


def _shed(connections: Iterable[HttpProtocol], most: int) -> None:
    """Drop the connections that hold the most unread answers, until all hold at most `most`."""
    unsent = {one: size for one in connections if (size := one.unsent)}
    total = sum(unsent.values())
    for one in sorted(unsent, key=lambda one: -unsent[one]):
        if total <= most:
            break
        one.abort()
        total -= unsent[one]


def configured(app: FastAPI, settings: Settings) -> Server:
    """Return the server of `app`."""
    config = uvicorn.Config(
        app,
        http=HttpProtocol if settings.fast_lane else "httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Nobody in front of us is trusted to name the client.
        proxy_headers=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        # uvicorn's own choice would leave TLS 1.2 the old ciphers alone.
        ssl_ciphers="ECDHE+AESGCM:ECDHE+CHACHA20",
        limit_concurrency=None if settings.fast_lane else settings.max_connections + 1,
        timeout_keep_alive=max(1, round(settings.idle_seconds)),
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    return Server(config)


def serve(settings: Settings, listener: socket.socket, place: int = 0) -> None:
    """Serve the API on `listener`, as the process at `place`, until a signal asks for a drain.

    A drain closes the listener, lets the requests in flight finish for `drain_seconds`, answers
    those that were on their way, and closes every connection.
    """
    server = configured(create_app(settings, place=place), settings)
    # A full collection over the modules alone takes as long as scoring a thousand requests, so it
    # comes before anything waits for an answer.
    gc.collect()
    server.run(sockets=[listener])
