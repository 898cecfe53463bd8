"""`anamnesis up`: real processes, started, killed, restarted and drained."""

import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from service.client import Client
from service.processes import spawn
from tests.waiting import alive, wait_for

# A short training, because its quality is not tested here.
CONFIG = {"retrain": {"min_vectors": None, "max_age_seconds": None}, "model": {"epochs": 3}}
NORMAL = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)


def children(pid: int) -> list[int]:
    """Return the process ids of all descendants."""
    pids = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            pids += [child, *children(child)]
    return pids


def _hostile_folder(folder: Path) -> Path:
    """Return a directory with modules that end any process that imports them."""
    project = folder / "project"
    for name in ("models/__init__.py", "service/__init__.py", "numpy.py", "torch.py", "redis.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("raise SystemExit('a module of the project was imported')")
    return project


class Up:
    """One `anamnesis up` in a user's project; its output goes to `output_file`.

    `wrap` is put before its command.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        wrap: Sequence[str] = (),
        output_folder: Path | None = None,
    ) -> None:
        self.output_file = (output_folder or folder) / f"output-{time.monotonic_ns()}"
        command = [*wrap, *spawn.python("service.cli", "up", "--port", "0")]
        command += ["--data-dir", str(folder / "data"), *options]
        # Only the settings of the test, none of the environment.
        env = {k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")}
        with self.output_file.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=_hostile_folder(folder), stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, env=env,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def url(self) -> str:
        """Wait until the service is ready; return its URL."""

        def find_url() -> re.Match[str] | None:
            assert self.process.poll() is None, self.output
            return re.search(r"^  API +(http\S+)/v1$", self.output, re.MULTILINE)

        return wait_for(find_url)[1]

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        return self.process.wait(30)


@pytest.fixture
def up(tmp_path) -> Iterator[Callable[..., Up]]:
    """Start `anamnesis up` on the test's data directory; kill what still runs at the end."""
    started: list[Up] = []

    def start(*options: str) -> Up:
        started.append(Up(tmp_path, *options))
        return started[-1]

    yield start
    for service in started:
        if service.process.poll() is None:
            children_left = children(service.process.pid)
            service.process.kill()
            service.process.wait()
            wait_for(lambda pids=children_left: not any(map(alive, pids)))


def test_champion_and_buffer_are_there_after_a_kill(up):
    """A killed parent leaves no orphan; after a restart champion and buffer are the same."""
    first = up()
    with Client(first.url()) as client:
        client.create("pump", CONFIG)
        client.learn("pump", NORMAL, key="1")
        outcome = client.retrain("pump")
        assert outcome["outcome"] == "promoted", outcome
        wait_for(lambda: client.detector("pump")["champion"] == 1)
        before = client.score("pump", NORMAL[:5])
        client.learn("pump", NORMAL[:7], key="2")
    descendants = children(first.process.pid)
    assert len(descendants) >= 3  # store, API, worker
    first.process.kill()
    first.process.wait()
    wait_for(lambda: not any(map(alive, descendants)))

    with Client(up().url()) as client:
        status = wait_for(lambda: _serving(client, "pump"))
        assert (status["champion"], status["buffered"]) == (1, 7)
        assert client.score("pump", NORMAL[:5])["scores"] == before["scores"]
        # The browser's key survives, too.
        assert client.learn("pump", NORMAL[:7], key="2")["duplicate"] == 7


def _serving(client: Client, name: str) -> dict | None:
    status = client.detector(name)
    return status if status["champion"] else None


@pytest.mark.parametrize(
    "sig", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.thorough)]
)
def test_a_signal_stops_everything_with_status_0(up, sig):
    """After SIGTERM or Ctrl-C the service and all its processes end with status 0."""
    service = up()
    service.url()
    descendants = children(service.process.pid)
    assert service.stop(sig) == 0, service.output
    assert not any(map(alive, descendants))
    assert "Traceback" not in service.output


def test_a_drain_answers_only_requests_in_flight(up):
    """A request that has begun is answered while the service stops; new ones are refused."""
    service = up()
    host, port = service.url().removeprefix("http://").split(":")
    # Half a request is sent; the rest follows once new connections are refused.
    request = http.client.HTTPConnection(host, int(port), timeout=20)
    body = b'{"retrain": {"min_vectors": null}}'
    request.putrequest("PUT", "/v1/detectors/late")
    request.putheader("content-type", "application/json")
    request.putheader("content-length", str(len(body)))
    request.endheaders(body[:10])
    with Client(service.url()) as client:
        assert client.health()  # by now the first half has been read
    service.process.terminate()
    wait_for(lambda: _refused(host, int(port)))
    assert service.process.poll() is None
    request.send(body[10:])
    with request.getresponse() as answer:
        assert answer.status == 201
    request.close()
    assert service.process.wait(20) == 0


def _refused(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


def test_a_second_service_on_the_same_directory_is_refused(up):
    """The second service says who uses the directory, and the first one continues."""
    service = up()
    url = service.url()
    two = up()
    assert two.process.wait(30) == 1
    assert f"in use by another `anamnesis up` (process {service.process.pid} on " in two.output
    with Client(url) as client:
        assert client.health()


@pytest.mark.parametrize(
    "which",
    [
        "valkey",
        *(
            pytest.param(which, marks=pytest.mark.thorough)
            for which in ("service.api", "service.worker")
        ),
    ],
)
def test_a_killed_child_comes_back(up, which):
    """Each child that dies is started again, and the service continues to learn."""
    service = up()
    with Client(service.url()) as client:
        client.create("pump", CONFIG)
        (victim,) = (pid for pid in children(service.process.pid) if which in _command(pid))
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: _has_other_child(service.process.pid, which, victim))
        wait_for(lambda: _accepted(client))
        assert client.retrain("pump")["outcome"] == "promoted"
    assert "child ended" in service.output or "store ended" in service.output


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _has_other_child(parent: int, which: str, victim: int) -> bool:
    return any(pid != victim and which in _command(pid) for pid in children(parent))


def _accepted(client: Client) -> bool:
    try:
        client.learn("pump", NORMAL, key="only-once")
    except Exception:  # noqa: BLE001 - any failure is one to retry, until the deadline
        return False
    return True


def test_workers_share_the_port_and_the_metrics(up):
    """Several API processes answer on one port, and their counters are added up."""
    service = up("--workers", "2")
    url = service.url()
    assert sum("service.api" in _command(pid) for pid in children(service.process.pid)) == 2
    with Client(url) as client:
        client.create("pump", CONFIG)
        client.learn("pump", NORMAL)
        client.retrain("pump")
        wait_for(lambda: _serving(client, "pump"))
    threads = [threading.Thread(target=_score_once, args=(url,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Client(url) as client:
        counted = 'anamnesis_vectors_scored_total{detector="pump"} 80.0'
        wait_for(lambda: counted in client.http.get("/metrics").text)


def _score_once(url: str) -> None:
    with Client(url) as client:
        wait_for(lambda: _scored(client))


def _scored(client: Client) -> bool:
    try:
        client.score("pump", NORMAL[:10])
    except Exception:  # noqa: BLE001 - this process may not have the first version yet
        return False
    return True
