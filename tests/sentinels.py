"""A master, a replica and three sentinels as processes on this machine."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis as BlockingRedis
from redis.exceptions import RedisError

from tests.conftest import DURABLE
from tests.deploy.running import free_port
from tests.waiting import wait_for

NAME = "anamnesis"
_CONFIG = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {name} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {name} 500
sentinel failover-timeout {name} 3000
"""


@dataclass
class Sentinels:
    """The ports of the running servers, and a URL that names the sentinels."""

    master: subprocess.Popen
    ports: tuple[int, int]
    url: str
    restart: Callable[[], object]  # starts the first master again, as a replica of the second

    def role(self, port: int) -> str:
        """Return `master` or `slave`, empty if nobody answers."""
        try:
            with BlockingRedis(port=port, socket_timeout=1) as client:
                return str(client.info("replication")["role"])
        except (RedisError, OSError):
            return ""

    def synchronised(self) -> bool:
        """Return whether the replica has all data of the master."""
        with BlockingRedis(port=self.ports[1], socket_timeout=1) as client:
            return client.info("replication").get("master_link_status") == "up"


@contextmanager
def sentinels(folder: Path) -> Iterator[Sentinels]:
    """Run until the end of the block; skip if the machine has no sentinel."""
    server, sentinel = shutil.which("redis-server"), shutil.which("redis-sentinel")
    if server is None or sentinel is None:
        pytest.skip("no redis-sentinel on this machine")
    ports = (free_port(), free_port())
    sentinel_ports = [free_port() for _ in range(3)]
    processes: list[subprocess.Popen] = []

    def start(name: str, *command: str) -> subprocess.Popen:
        (folder / name).mkdir(exist_ok=True)
        with (folder / name / "log").open("ab") as log:
            process = subprocess.Popen([*command], cwd=folder / name, stdout=log, stderr=log)
        processes.append(process)
        return process

    try:

        def serve(port: int, master: int | None) -> subprocess.Popen:
            replica = () if master is None else ("--replicaof", "127.0.0.1", str(master))
            address = ("--port", str(port), "--bind", "127.0.0.1", "--save", "")
            no_delay = ("--repl-diskless-sync-delay", "0")
            return start(f"server-{port}", server, *address, *DURABLE, *no_delay, *replica)

        first = serve(ports[0], None)
        serve(ports[1], ports[0])
        for port in sentinel_ports:
            config = folder / f"sentinel-{port}.conf"
            config.write_text(_CONFIG.format(port=port, folder=folder, name=NAME, master=ports[0]))
            start(f"sentinel-{port}", sentinel, str(config))
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinel_ports)
        url = f"redis+sentinel://{hosts}/{NAME}/0"
        started = Sentinels(first, ports, url, lambda: serve(ports[0], ports[1]))
        _wait(lambda: started.role(ports[0]) == "master" and started.synchronised())
        _wait(lambda: all(_agreed(port) for port in sentinel_ports))
        yield started
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _agreed(port: int) -> bool:
    """Return whether a sentinel knows the replica and both other sentinels."""
    with BlockingRedis(port=port, socket_timeout=1) as client:
        master = client.sentinel_master(NAME)
        return master["num-slaves"] == 1 and master["num-other-sentinels"] == 2


def _wait(check: Callable[[], bool]) -> None:
    def check_connected() -> bool:
        try:
            return check()
        except (RedisError, OSError):
            return False  # not listening yet

    wait_for(check_connected, "the servers to find each other")
