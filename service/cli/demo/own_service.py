"""Starts a service for the demonstration if no URL of one is given."""

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

from service.processes import spawn
from service.processes.supervisor import StartupFailed

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


@contextlib.contextmanager
def running(folder: Path, *, keep: bool) -> Generator[str, None, None]:
    """Run `anamnesis up` with `folder` as its data directory on a free port. Yield its URL.

    The service stops at the end, or when this process dies. With `keep` it runs on if no error
    occurred. Raises StartupFailed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "up.log"
    arguments = ("--host", "127.0.0.1", "--port", "0", "--data-dir", str(folder))
    command = spawn.python("service.cli", "up", *arguments)
    with log_file.open("wb") as log:
        if keep:
            # The service must outlive this process and its terminal.
            service = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        else:
            # At SIGTERM the service stops its own children in order.
            options = spawn.Spawn(death_signal=signal.SIGTERM)
            service = spawn.spawn(command, options, stdout=log, stderr=log)
    (folder / "pid").write_text(str(service.pid))
    try:
        yield _wait_for_url(service, log_file)
    except BaseException:
        _stop(service)
        raise
    if keep:
        # The process is left running on purpose. Without a status Python would warn about it.
        service.returncode = 0
    else:
        _stop(service)


def how_to_use(url: str, folder: Path) -> str:
    """Return commands to try on the service that still runs, and how to stop it."""
    pid = (folder / "pid").read_text()
    return (
        f"\nThe service goes on at {url} (docs: {url}/docs). Try:\n"
        f"  anamnesis detectors --url {url}\n"
        f"  anamnesis versions digits-replay --url {url}\n"
        f"Stop it with: kill {pid}; start it again with: anamnesis up --data-dir {folder}"
    )


def _wait_for_url(service: subprocess.Popen[bytes], log_file: Path) -> str:
    until = time.monotonic() + _START_SECONDS
    while True:
        output = log_file.read_text(errors="replace")
        if match := re.search(r"^  API +(http\S+)/v1$", output, re.MULTILINE):
            return match[1]
        if service.poll() is not None or time.monotonic() > until:
            raise StartupFailed(f"`anamnesis up` did not come up:\n{output}")
        time.sleep(0.05)


def _stop(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()
