"""One API process: uvicorn on a listening socket that all API processes of the parent share."""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
import ssl
from collections.abc import Generator, Iterable
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from service import log
from service.api.app import create_app
from service.api.fast_lane.connection import HttpProtocol
from service.api.fast_lane.handshake import Handshake
from service.certificate import check_certificate
from service.reread import Reread
from service.settings import Settings, variable

_log = log.get(__name__)

_OTHER_FILES = 256  # open files of a process beside its clients: store, models, metrics
_SWEEP_TICKS = 5  # ticks of 0.1 s between two checks for slow connections
_CERTIFICATE_TICKS = 20  # ticks of 0.1 s between two checks for another certificate
_ACCEPTED_AT_ONCE = 8  # connections that the only API process accepts in one turn of the event loop


class Server(uvicorn.Server):
    """uvicorn that exits with status 0 after a drain.

    uvicorn itself raises the signal again after draining. A supervisor (ours, systemd, an
    orchestrator) would take that for a crash.

    New connections get a new certificate within seconds after its files were replaced.
    """

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings
        self._certificate = Reread("certificate", partial(check_certificate, settings))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Begin a drain at SIGTERM or SIGINT. A second SIGINT ends the process at once."""
        before = {
            sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start. Objects made so far live as long as the process: garbage collection skips them."""
        await super().startup([])
        config = self.config
        protocol: Any = config.http_protocol_class
        make = partial(
            protocol, config=config, server_state=self.server_state, app_state=self.lifespan.state
        )
        seconds, most = self._settings.header_seconds, self._settings.max_connections
        begun: dict[asyncio.Future[None], Any] = {}

        def accepted() -> asyncio.BaseProtocol:
            connection: asyncio.BaseProtocol = make()
            if config.ssl is None:
                return connection
            return Handshake(connection, config.ssl, seconds, begun, most)

        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(accepted, sock=sock, backlog=config.backlog)
            for sock in sockets or ()
        ]
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and let garbage collection see all objects again."""
        if isinstance(self.config.app, FastAPI) and hasattr(self.config.app.state, "parts"):
            self.config.app.state.parts.changes.close()
        await super().shutdown(sockets)
        gc.unfreeze()

    async def on_tick(self, counter: int) -> bool:
        """Run uvicorn's tick. Also close slow connections, and read a new certificate."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            # With the fast lane off, uvicorn's own connections handle slow peers themselves.
            ours = [
                connection
                for connection in self.server_state.connections
                if isinstance(connection, HttpProtocol)
            ]
            for connection in ours:
                connection.sweep(now)
            if ours:
                _drop_unread(ours, ours[0].settings.unsent_max_bytes)
        if counter % _CERTIFICATE_TICKS == 0 and self.config.ssl is not None:
            self._read_certificate(self.config.ssl)
        return await super().on_tick(counter)

    def _read_certificate(self, context: ssl.SSLContext) -> None:
        """Let new connections get the certificate in the files, if it was replaced."""
        if self._certificate.refresh():
            context.load_cert_chain(self._settings.tls_cert or "", self._settings.tls_key)


def _drop_unread(connections: Iterable[HttpProtocol], most: int) -> None:
    """Drop connections until all unread answers together have at most `most` bytes.

    The connections with the most unread bytes are dropped first.
    """
    unsent = {connection: size for connection in connections if (size := connection.unsent)}
    total = sum(unsent.values())
    for connection in sorted(unsent, key=lambda connection: -unsent[connection]):
        if total <= most:
            break
        connection.abort()
        total -= unsent[connection]


def make_server(app: FastAPI, settings: Settings) -> Server:
    """Return the server of `app`."""
    config = uvicorn.Config(
        app,
        http=HttpProtocol if settings.fast_lane else "httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # No proxy is trusted to name the client.
        proxy_headers=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        # uvicorn's default would leave TLS 1.2 only with old ciphers.
        ssl_ciphers="ECDHE+AESGCM:ECDHE+CHACHA20",
        limit_concurrency=None if settings.fast_lane else settings.max_connections + 1,
        timeout_keep_alive=max(1, round(settings.idle_seconds)),
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    return Server(config, settings)


def descriptors(listener: socket.socket, settings: Settings) -> list[socket.socket]:
    """Return the descriptors of `listener` that one API process watches.

    In one turn, uvloop answers every open connection once and accepts one connection for each
    descriptor. With one descriptor, 256 clients that connect at once to a busy process wait for
    seconds. Several API processes have one descriptor each: connections spread over them better.
    """
    # A copy of a blocking socket makes the listener blocking for every process that shares it. A
    # process that should answer clients would then wait for the next connection.
    listener.settimeout(0.0)
    more = _ACCEPTED_AT_ONCE - 1 if settings.workers == 1 else 0
    return [listener, *(listener.dup() for _ in range(more))]


def allow_open_files(settings: Settings) -> None:
    """Raise the process's limit of open files to what its connections need.

    Many systems start processes with 1,024. A process at its limit resets new connections, and
    reaches neither its store nor its files.
    """
    handshakes = settings.max_connections if settings.tls_cert is not None else 0
    needed = settings.max_connections + handshakes + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        name = variable("max_connections")
        _log.warning(f"too few open files are allowed for {name}", allowed=hard, needed=needed)


def serve(settings: Settings, listener: socket.socket, place: int = 0) -> None:
    """Serve the API on `listener` until a signal begins a drain, and the drain has ended.

    `place` is this process's number among the API processes. A drain closes the listener, gives
    the open requests `drain_seconds` to finish, answers requests that are already on their way,
    and closes every connection.
    """
    allow_open_files(settings)
    server = make_server(create_app(settings, place=place), settings)
    # A full garbage collection takes as long as scoring a thousand requests. It runs here, before
    # any client waits for an answer.
    gc.collect()
    server.run(sockets=descriptors(listener, settings))
