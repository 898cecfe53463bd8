"""A stage: a store, API processes and workers that one test may break.

Every process is real, has a folder and ports of its own, and is killed by its pid at the end. The
stage holds the listening socket, as a supervisor does. So a new API process gets the port of a
killed one, and clients that connect meanwhile wait instead of being refused.
"""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from service.processes.embedded_store import find_server
from service.processes.process_table import resident_bytes
from service.settings import Settings
from service.store.connection import connect
from tests.conftest import StoreProcess
from tests.faults.wire import Answer, Connection, Reset
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]
DIMENSION = 3
# The network is small, so that hundreds of retrainings are quick. The gate is not tested here.
CONFIG: dict[str, Any] = {
    "dimension": DIMENSION,
    "model": {"hidden": [8], "latent": 2, "epochs": 5},
    "gate": "report",
    "admission": "accept",
    "retrain": {"min_vectors": None, "max_age_seconds": None},
}


class Stage:
    """Processes over one store. `url` may lead to the store through a proxy."""

    def __init__(self, folder: Path, store: StoreProcess, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.store = store
        self.url = store.url
        self.redis: Redis = None  # type: ignore[assignment] - set by `staged`
        self.apis: list[subprocess.Popen] = []
        self.workers: list[subprocess.Popen] = []
        self._settings = {
            "versions_kept": 100_000,
            "cache_dir": folder / "cache",
            "insecure": True,
        } | settings
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def settings(self) -> Settings:
        return Settings(redis_url=self.url, **self._settings)

    # Processes

    def start_api(self, **environment: str) -> subprocess.Popen:
        """Start one more API process on the stage's port."""
        descriptor = self.listener.fileno()
        api = self._start(
            "service.api", str(descriptor), "0", pass_fds=(descriptor,), **environment
        )
        self.apis.append(api)
        return api

    def start_worker(self, **environment: str) -> subprocess.Popen:
        """Start one more worker."""
        worker = self._start("service.worker", **environment)
        self.workers.append(worker)
        return worker

    def _start(
        self, *command: str, pass_fds: tuple[int, ...] = (), **environment: str
    ) -> subprocess.Popen:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=pass_fds, env=self.settings().environment(**environment),
            )  # fmt: skip

    @property
    def log(self) -> str:
        """The output of the processes."""
        return (self.folder / "log").read_text()

    async def dies(self, victim: subprocess.Popen) -> int:
        """Wait for a process's end; return its status."""
        await self.until(lambda: victim.poll() is not None)
        for running in (self.apis, self.workers):
            if victim in running:
                running.remove(victim)
        return int(victim.returncode)

    async def kill(self, victim: subprocess.Popen, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal that ends the process; return its status."""
        victim.send_signal(signal_number)
        return await self.dies(victim)

    def close(self) -> None:
        """End every process by its pid."""
        for process in (*self.workers, *self.apis):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        self.listener.close()

    # Talking to it

    async def ask(self, method: str, path: str, document: Any = None, **headers: str) -> Answer:
        """Send one request on its own connection; repeat it until there is an answer."""
        body = b"" if document is None else json.dumps(document).encode()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                async with Connection(self.port) as connection:
                    return await connection.ask(method, path, body, **headers)
            except (Reset, OSError):
                assert time.monotonic() < deadline, self.log
                await asyncio.sleep(0.02)

    async def make(self, name: str = "pump", **config: Any) -> None:
        """Create the detector with `CONFIG`, changed by `config`."""
        answer = await self.ask("PUT", f"/v1/detectors/{name}", CONFIG | config)
        assert answer.status in {200, 201}, answer

    async def status(self, name: str = "pump") -> dict[str, Any]:
        """Return the detector's status, waiting while the store is away."""
        statuses: list[dict[str, Any]] = []

        async def status_is_answered() -> bool:
            answer = await self.ask("GET", f"/v1/detectors/{name}")
            if answer.status == 200:
                statuses.append(answer.json())
            return bool(statuses)

        await self.until(status_is_answered)
        return statuses[0]

    async def ready(self) -> None:
        """Wait until an API process answers."""

        async def api_answers() -> bool:
            return (await self.ask("GET", "/healthz")).status == 200

        await self.until(api_answers)

    async def idle(self, name: str = "pump") -> bool:
        """Return whether nothing is being learned and nothing waits to be learned."""
        status = await self.status(name)
        return status["retraining"]["state"] == "idle" and not status["buffered"]

    async def promote(self, version: int, name: str = "pump") -> None:
        """Make a version champion by hand."""
        answer = await self.ask("PUT", f"/v1/detectors/{name}/champion", {"version": version})
        assert answer.status == 200, answer

    async def retrained(self) -> dict[str, Any]:
        """Retrain now; return the outcome once it is final."""
        before = (await self.status())["last_retraining"]
        answer = await self.ask("POST", "/v1/detectors/pump/retrain", {})
        assert answer.status == 202, answer
        latest: dict[str, Any] = {}

        async def retraining_is_over() -> bool:
            status = await self.status()
            latest.update(status)
            return status["last_retraining"] != before and status["retraining"]["state"] == "idle"

        await self.until(retraining_is_over)
        return dict(latest["last_retraining"])

    async def until(self, check: Callable[[], bool | Awaitable[bool]]) -> float:
        """Wait until `check` holds; return the seconds that took. Fails with the log's end."""
        try:
            return await until(check)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-4000:]}") from None


@contextlib.asynccontextmanager
async def staged(
    *,
    apis: int = 1,
    workers: int = 0,
    command: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
    **settings: Any,
) -> AsyncIterator[Stage]:
    """Set up a stage with this many API processes and workers.

    `command` starts the store (default: the usual server); `options` are added to the options that
    make it durable.
    """
    with tempfile.TemporaryDirectory(prefix="anamnesis-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "store").mkdir()
        store = StoreProcess(folder / "store", command or find_server(), options)
        stage = Stage(folder, store, settings)
        try:
            store.start()
            stage.redis = await connect(store.url)
            for _ in range(workers):
                stage.start_worker()
            for _ in range(apis):
                stage.start_api()
            if apis:
                await stage.ready()
            yield stage
        finally:
            stage.close()
            store.kill()
            if stage.redis is not None:
                await stage.redis.aclose()
        left: list[int] = []

        def no_process_is_left() -> bool:
            left[:] = _processes_of(folder)
            return not left

        try:
            await until(no_process_is_left)
        except AssertionError:
            raise AssertionError(f"I7: these processes outlived their parents: {left}") from None


def _processes_of(folder: Path) -> list[int]:
    """Return the processes that were started with the stage's settings, or by one of these."""
    settings, running = f"ANAMNESIS_CACHE_DIR={folder}/".encode(), []
    for variables in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if settings in variables.read_bytes():
                running.append(int(variables.parent.name))
    return running


def resources(pid: int) -> tuple[int, int]:
    """Return a process's resident bytes and open files."""
    return resident_bytes(pid), len(list(Path(f"/proc/{pid}/fd").iterdir()))
