"""Helpers for tests of whole deployments: free ports, processes, waiting."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import wait_for

ANAMNESIS = (sys.executable, "-c", "from service.cli.__main__ import main; main()")


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """Run `command`, which writes to `log`; at the end of the block stop it, or kill it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")}
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={**inherited, "PYTHONPATH": path, **(environment or {})},
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def call(
    method: str, url: str, body: Any = None, seconds: float = 10.0, key: str = ""
) -> tuple[int, Any]:
    """Return status and decoded JSON; 0 and the reason if nothing answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (OSError, ValueError) as error:
        return 0, str(error)


def learn(
    url: str,
    detector: str,
    vectors: list[list[float]],
    *logs: Path,
    key: str = "",
    incidents: bool = True,
) -> None:
    """Create the detector, send normal vectors, and wait for the version that learned them."""
    # Few epochs, because the trainer is nice and gets little time on a busy machine.
    by_hand = {"min_vectors": None, "max_age_seconds": None}
    config: dict[str, Any] = {"retrain": by_hand, "model": {"epochs": 20}}
    if not incidents:
        config["incident"] = None
    where = f"{url}/v1/detectors/{detector}"
    wait_for(lambda: call("PUT", where, config, key=key)[0] in {200, 201}, "config", *logs)
    assert call("POST", f"{where}/normal", {"vectors": vectors}, key=key)[0] == 202
    assert call("POST", f"{where}/retrain", {}, key=key)[0] == 202
    wait_for(lambda: call("GET", where, key=key)[1]["champion"] == 1, "the first version", *logs)
