"""Fixtures for every test: the asyncio backend, and real stores that end with the tests."""

import asyncio
import functools
import inspect
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when numpy and torch load: networks this small gain nothing from a second thread, and the
# processes under test need the other core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Refused

from service.processes.embedded_store import find_server
from service.store.connection import connect

# A shell that starts the tests in the background makes them ignore this signal, and every process
# that they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The time of an example depends on the machine, so it has no deadline. The examples are the same in
# each run, so that a failure belongs to the change that is tested.
hypothesis.settings.register_profile("patient", deadline=None, derandomize=True)
hypothesis.settings.load_profile("patient")

LONGEST = 500  # seconds that an asynchronous test may take: less than pyproject's `--timeout`

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")


@dataclass
class StoreProcess:
    """A server in its own folder, on a unix socket: start it, freeze it, kill it."""

    folder: Path
    command: tuple[str, ...]
    options: tuple[str, ...] = ()  # in addition to those of `start`
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/s"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *options: str) -> None:
        flags = ("--port", "0", "--unixsocket", "s", "--dir", str(self.folder), "--save", "")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *flags, *DURABLE, *self.options, *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + 20
        with BlockingRedis(unix_socket_path=f"{self.folder}/s") as client:
            while True:
                try:
                    if client.ping():
                        return
                except (Refused, OSError):  # not listening yet, or still loading
                    assert time.monotonic() < deadline, (self.folder / "log").read_text()
                    # Nothing signals when a socket appears, so this polls until a deadline.
                    time.sleep(0.01)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


def _serve(command: tuple[str, ...]) -> Iterator[StoreProcess]:
    # Not pytest's folder: the path of a unix socket may hold about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="anamnesis-", ignore_cleanup_errors=True) as folder:
        store = StoreProcess(Path(folder), command)
        store.start()
        try:
            yield store
        finally:
            store.kill()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limit the time of every asynchronous test: one that hangs fails and shows where it waits.

    pytest's own time limit cannot do that: its exception ends a step of the loop, not the test, and
    the fixtures then wait for the test.
    """
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: Any, **fixtures: Any) -> None:
        async with asyncio.timeout(LONGEST):
            await test(*args, **fixtures)

    return bounded


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def store_process() -> Iterator[StoreProcess]:
    """Start one durable server for the whole session."""
    yield from _serve(find_server())


@pytest.fixture(scope="session")
def debian_process() -> Iterator[StoreProcess]:
    """Start the `redis-server` of the machine, if there is one."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on this machine")
    yield from _serve((server,))


@pytest.fixture
def own_store() -> Iterator[StoreProcess]:
    """Start a server that the test may break."""
    yield from _serve(find_server())


@pytest.fixture
async def own_redis(own_store: StoreProcess) -> AsyncIterator[Redis]:
    """Connect to the server that the test may break."""
    async with await connect(own_store.url) as client:
        yield client


@pytest.fixture
def store_url(store_process: StoreProcess) -> str:
    """Empty the session's store and return its URL."""
    with BlockingRedis.from_url(store_process.url) as client:
        client.flushall()
    return store_process.url


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[Redis]:
    """Connect to an empty store."""
    # On a busy machine the store may answer late, too.
    client = await connect(store_url, deadline=20.0)
    yield client
    await client.aclose()
