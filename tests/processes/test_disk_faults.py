"""`anamnesis up` while its disk fails: scoring depends on memory alone."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.client import Client
from tests.processes.test_up import CONFIG, NORMAL, Up, _command, _has_other_child, children
from tests.waiting import wait_for

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_MAY_MOUNT = (
    shutil.which("unshare") is not None
    and not subprocess.run(
        [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
)


class OnItsOwnDisk(Up):
    """An `anamnesis up` whose data directory is a file system of its own, with 96 MB."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        mounted = f'mount -t tmpfs -o size=96m tmpfs {self.disk} && exec "$@"'
        # Open, because a new process cannot read the keys from the store.
        super().__init__(
            self.disk,
            "--insecure",
            wrap=(*_NAMESPACE, "sh", "-c", mounted, "sh"),
            output_folder=folder,
        )

    @property
    def data(self) -> Path:
        """The data directory as this process sees it."""
        return Path(f"/proc/{self.process.pid}/root{self.disk}/data")

    def read_only(self) -> None:
        """Make the file system read-only for everything that is opened from now on."""
        self._run("mount", "--bind", str(self.disk), str(self.disk))
        self._run("mount", "-o", "remount,bind,ro", str(self.disk))

    def writable(self) -> None:
        """Undo `read_only`."""
        self._run("umount", str(self.disk))

    def _run(self, *command: str) -> None:
        enter = ("nsenter", "-t", str(self.process.pid), "--user", "--preserve-credentials", "-m")
        subprocess.run([*enter, *command], check=True)


def _client_of_trained(service: Up) -> Client:
    client = Client(service.url())
    client.create("pump", CONFIG)
    client.learn("pump", NORMAL)
    assert client.retrain("pump")["outcome"] == "promoted"
    wait_for(lambda: client.detector("pump")["champion"])
    return client


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[tuple[OnItsOwnDisk, Client]]:
    """Start a service with a champion on a disk that a test breaks and then repairs."""
    if not _MAY_MOUNT:
        pytest.skip("no file system can be mounted here")
    service = OnItsOwnDisk(tmp_path_factory.mktemp("disk"))
    try:
        with _client_of_trained(service) as client:
            yield service, client
    finally:
        service.stop()


def _scores(client: Client) -> bool:
    """Return whether the service scores; an answer other than 200 fails the test."""
    try:
        answer = client.http.post("/v1/detectors/pump/score", json={"vectors": NORMAL[:2].tolist()})
    except httpx.TransportError:
        return False  # a process is being replaced
    return answer.status_code == 200


def _learn_status(client: Client) -> int:
    # Near the middle of the learned vectors, so that admission holds no row back.
    rows = np.random.default_rng(0).normal(scale=0.3, size=(40, 4)).tolist()
    return client.http.post("/v1/detectors/pump/normal", json={"vectors": rows}).status_code


def _buffered(client: Client) -> int:
    answer = client.http.get("/v1/detectors/pump")  # 503: on a busy machine the store answers late
    return answer.json()["buffered"] if answer.is_success else -1


def _kill(service: Up, which: str) -> int:
    (victim,) = (pid for pid in children(service.process.pid) if which in _command(pid))
    os.kill(victim, signal.SIGKILL)
    return victim


def _restart_api(service: Up) -> None:
    victim = _kill(service, "service.api")
    wait_for(lambda: _has_other_child(service.process.pid, "service.api", victim))


def _fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", 0) as file:
        for size in (2**16, 1):  # fill the disk to the last byte
            with contextlib.suppress(OSError):
                while os.write(file.fileno(), bytes(size)):
                    pass
    return filler


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_on_a_disk_without_writes_scoring_goes_on(disk, fault):
    """Scoring continues, in a new process too; learning is refused until the disk works again."""
    service, client = disk
    if fault == "full":
        repair = _fill(service.data).unlink
    else:
        service.read_only()
        _kill(service, "valkey")
        repair = service.writable
    assert wait_for(lambda: _learn_status(client) == 503)
    assert _scores(client)
    _restart_api(service)
    wait_for(lambda: _scores(client))
    assert client.http.get("/metrics").status_code == 200
    repair()
    wait_for(lambda: _learn_status(client) == 202)
    assert "Traceback" not in service.output


def test_a_removed_metrics_folder_is_created_again(disk):
    """A batch is stored and acknowledged, and the folder is created again."""
    service, client = disk
    (folder,) = (service.data / "metrics").iterdir()
    shutil.rmtree(folder)
    before = client.detector("pump")["buffered"]
    assert _learn_status(client) == 202
    assert client.http.put("/v1/detectors/another", json={}).status_code == 201
    assert (
        client.http.post(
            "/v1/detectors/another/normal", json={"vectors": [[1.0], [2.0]]}
        ).status_code
        == 202
    )
    assert client.detector("pump")["buffered"] == before + 40
    page = client.http.get("/metrics").text
    assert 'anamnesis_normal_vectors_total{detector="another",outcome="accepted"} 2.0' in page
    wait_for(lambda: any(folder.glob("anamnesis-0-total.values")))


@pytest.mark.parametrize(
    "lost",
    [
        ".",
        *(
            pytest.param(inner, marks=pytest.mark.thorough)
            for inner in ("store", "store/appendonlydir")
        ),
    ],
)
def test_without_its_data_directory_nothing_is_acknowledged(disk, lost):
    """Without its directory the service acknowledges nothing; with it, all data is there again."""
    service, client = disk
    before = client.detector("pump")["buffered"]
    lost_path = service.data if lost == "." else service.data / lost
    moved_to = lost_path.with_name("elsewhere")
    lost_path.rename(moved_to)
    wait_for(lambda: _learn_status(client) == 503)
    assert _scores(client)
    wait_for(lambda: client.http.get("/readyz").json()["status"] == "degraded")
    wait_for(lambda: "the data directory was deleted or replaced" in service.output)
    moved_to.rename(lost_path)
    wait_for(lambda: client.http.get("/readyz").json()["status"] == "ready")
    wait_for(lambda: _buffered(client) >= before)
    assert "Traceback" not in service.output
