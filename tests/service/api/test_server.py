"""A process accepts many connections in one turn of the event loop."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator

import pytest
import uvloop
from structlog.testing import capture_logs

from service.api.server import allow_open_files, descriptors
from service.settings import Settings

CLIENTS = 64


def turns_to_accept(settings: Settings) -> int:
    """Return in how many turns of the event loop CLIENTS waiting connections are accepted."""
    accepted: set[int] = set()  # the turns in which a connection was accepted
    connections = 0

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal connections
            connections += 1
            accepted.add(turn)
            transport.close()

    async def main() -> None:
        nonlocal turn
        loop = asyncio.get_running_loop()
        sockets = descriptors(listener, settings)
        servers = [await loop.create_server(Accepted, sock=socket) for socket in sockets]
        while connections < CLIENTS:
            turn += 1
            await asyncio.sleep(0)
        for server, accepting in zip(servers, sockets, strict=True):
            server.close()
            accepting.close()

    turn = 0
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
        port = listener.getsockname()[1]
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(main(), 120))
        for client in clients:
            client.close()
    return len(accepted)


def test_one_process_accepts_many_connections_in_a_turn() -> None:
    """New clients do not wait for many answers to the clients that are connected."""
    assert turns_to_accept(Settings(workers=1)) <= CLIENTS / 4


def test_several_processes_accept_one_connection_in_a_turn() -> None:
    """An idle process does not take the connections that the others could serve."""
    assert turns_to_accept(Settings(workers=2)) == CLIENTS


def test_a_shared_listener_stays_non_blocking() -> None:
    """A process that starts does not block another one that serves on the same socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_blocking(listener.fileno(), False)
        inherited = socket.socket(fileno=os.dup(listener.fileno()))
        for accepting in descriptors(inherited, Settings(workers=1)):
            assert not os.get_blocking(listener.fileno())
            accepting.close()


@pytest.fixture
def few_files() -> Iterator[int]:
    """Allow this process few open files; return how many it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_allows_itself_the_files_of_its_connections(few_files: int) -> None:
    """A limit of open files that is below the bound of connections is raised."""
    assert few_files > 1500
    with capture_logs() as logs:
        allow_open_files(Settings(max_connections=1000))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
    assert not logs
    with capture_logs() as logs:
        allow_open_files(Settings(max_connections=few_files))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == few_files
    assert [line["event"] for line in logs] == [
        "too few open files are allowed for ANAMNESIS_MAX_CONNECTIONS"
    ]
