"""The data directory of `anamnesis up`: locks it, and checks that its files are complete.

A lock on a file shows whether another process uses the directory. A process id in a file would not
show it: in another container the same id belongs to another process.
"""

import fcntl
import hashlib
import os
import re
import socket
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

_SOCKET_PATH_MAX = 103  # bytes: sun_path holds 104 with its final zero on macOS, 108 on Linux
_POLL_SECONDS = 0.01
_HOLDER = re.compile(r"(\d+( \S+)?)?")  # the content of our lock files
_UNFINISHED = re.compile(r"temp-(rewriteaof-(bg-)?\d+\.aof|\d+\.rdb)")  # as the server names them


class StoreFailed(Exception):  # noqa: N818 - it states what happened
    """The embedded store cannot be started or has ended. The message says why."""


class DirectoryInUse(StoreFailed):
    """Another `anamnesis up` holds the data directory."""


def socket_path(directory: Path) -> Path:
    """Return the path of the socket on which the store of `directory` listens.

    It is inside the directory if its path is short enough for the operating system. Otherwise it
    is in a private folder among the temporary files, always the same one for a directory.
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
    # Other users can write to the temporary folder. A link or another user's folder is not safe.
    if folder.is_symlink() or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise StoreFailed(f"{folder} belongs to another user: choose a shorter --data-dir")
    return folder / "s"


class DataDirectory:
    """A data directory that only this process holds, until `release` or the process's end."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.lock: int | None = None  # only this process holds it
        self.store_lock: int | None = None  # the store inherits it and holds it as long as it lives
        self._store: os.stat_result | None = None
        self._written = False  # the store has files

    @property
    def store(self) -> Path:
        """Where the store keeps its files."""
        return self.path / "store"

    def prepare(self) -> None:
        """Make the store's folder, and remove the unfinished files of a killed server.

        Raises StoreFailed if the store's files are incomplete. Call it while no server runs.
        """
        if (why_lost := self.lost()) is not None:
            raise StoreFailed(why_lost)
        if self._store is None:
            self.store.mkdir(mode=0o700, exist_ok=True)
            self._store = self.store.stat()
            if (half := half_restored(self.store)) is not None:
                raise StoreFailed(f"the store would start without its data: {half}")
        # A server that was killed during a rewrite leaves these files and never uses them again.
        # They hold rows of that time, which would stay on the disk forever.
        for file in self.store.iterdir():
            if _UNFINISHED.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def lost(self) -> str | None:
        """Return in words what was deleted or replaced since `acquire`, None if nothing was."""
        assert self.lock is not None
        watched = ((self.path / "lock", os.fstat(self.lock)), (self.store, self._store))
        for path, before in watched:
            if before is None:
                continue
            try:
                now = path.stat()
            except OSError as error:
                return f"{path} is gone: {error.strerror}"
            if not os.path.samestat(now, before):
                return f"{path} was replaced"
        if self._store is None:
            return None
        missing = missing_files(self.store)
        has_manifest = manifest_of(self.store).exists()
        if missing is None and self._written and not has_manifest:
            missing = manifest_of(self.store)
        self._written = self._written or has_manifest
        return None if missing is None else f"{missing} is gone"

    def acquire(self, patience: float = 5.0) -> None:
        """Lock the directory. Make it if it is missing.

        A store that a killed `anamnesis up` left is told to stop. It has `patience` seconds to do
        so. Raises DirectoryInUse if another process holds the directory, and StoreFailed if the
        directory cannot be made or written to.
        """
        try:
            self._acquire(patience)
        except OSError as error:
            self.release()
            raise StoreFailed(
                f"the data directory {self.path} (ANAMNESIS_DATA_DIR) cannot be used: "
                f"{error.strerror}"
            ) from None
        except StoreFailed:
            self.release()
            raise

    def _acquire(self, patience: float) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = open_lock(self.path / "lock")
        holder = os.pread(self.lock, 300, 0).decode(errors="replace")
        if not _HOLDER.fullmatch(holder):
            raise StoreFailed(
                f"{self.path / 'lock'} is not a lock of `anamnesis up`: choose another --data-dir"
            )
        if not try_lock(self.lock):
            raise DirectoryInUse(
                f"the data directory {self.path} is in use by another `anamnesis up` "
                f"(process {holder.replace(' ', ' on ')}); stop it, or choose another --data-dir"
            )
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
        # No other supervisor holds the directory. The store of a killed one may still write to it.
        self.store_lock = open_lock(self.path / "store.lock")
        deadline = time.monotonic() + patience
        while not try_lock(self.store_lock):
            if time.monotonic() > deadline:
                raise DirectoryInUse(
                    f"the store of an `anamnesis up` that was killed still holds {self.path} "
                    f"after {patience:g} s; stop it, or choose another --data-dir"
                )
            ask(socket_path(self.path), b"SHUTDOWN\r\n")
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Unlock the directory."""
        for lock in (self.lock, self.store_lock):
            if lock is not None:
                os.close(lock)
        self.lock = self.store_lock = None


def open_lock(file: Path) -> int:
    """Return the descriptor of a file for a lock. Make the file if it is missing."""
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(lock: int) -> bool:
    """Lock an open file. Return False if another process holds the lock."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def address(path: Path) -> str:
    """Return the URL of the store that listens on a socket, in the form for Redis clients."""
    # A `#` or `?` in a folder's name must be quoted, or it would end the path.
    return f"unix://{quote(str(path))}"


def ask(path: Path, command: bytes) -> bytes:
    """Return the server's answer to one inline command, b'' if it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(0.5)
            link.connect(str(path))
            link.sendall(command)
            return link.recv(65536)
    except OSError:
        return b""


def manifest_of(store: Path) -> Path:
    """Return the file in which the server lists its other files."""
    return store / "appendonlydir" / "appendonly.aof.manifest"


def half_restored(store: Path) -> str | None:
    """Return in words which file of a backup is missing, None if none is.

    Without that file a server would start empty.
    """
    if (missing := missing_files(store)) is not None:
        return f"{missing} is missing; restore all of {store}, or remove the rest of it"
    snapshots = sorted(path.name for path in store.glob("*.rdb"))
    if snapshots and not manifest_of(store).exists():
        return (
            f"{store / snapshots[0]} is a snapshot, which a store with an append-only file does "
            f"not read, and {manifest_of(store).parent} is missing"
        )
    return None


def missing_files(store: Path) -> Path | None:
    """Return a missing file: one that the store's manifest names, or the manifest itself.

    None if no file is missing, and before the store's first write.
    """
    listed = manifest_of(store)
    try:
        lines = listed.read_text().splitlines()
    except FileNotFoundError:
        return listed if any(listed.parent.glob("*.aof")) else None
    except (OSError, UnicodeDecodeError):
        return None  # the file is there; whether it is valid is for the store to decide
    for line in lines:
        # A line is `file NAME seq N type b|i|h`. A rewrite is about to delete files of type h.
        words = line.split()
        about = dict(zip(words[::2], words[1::2], strict=False))
        file = listed.with_name(about.get("file", listed.name))
        if about.get("type") in ("b", "i") and not file.exists():
            return file
    return None
