"""Reads a file while it grows."""

import io
import os
import time
from pathlib import Path

from service.cli.table_files import BadTable

_LOOK_SECONDS = 0.2  # between two checks whether the file has grown


class GrowingFile(io.RawIOBase):
    """A file to which others append. Reading waits at its end for more.

    If another file takes its place, as when logs are rotated, reading goes on there, without the
    header that both begin with. `lines` is the number of lines that the file had when it was
    opened.
    """

    def __init__(self, path: Path, look_seconds: float = _LOOK_SECONDS) -> None:
        self._path, self._look = path, look_seconds
        self._file = path.open("rb")
        self.lines = sum(block.count(b"\n") for block in iter(lambda: self._file.read(2**20), b""))
        self._file.seek(0)
        self._header = self._file.readline()
        self._file.seek(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read the next bytes. Wait if there are none. Raises BadTable if the file shrinks."""
        while not (read := self._file.readinto(buffer)):
            if not self._goes_on_elsewhere():
                time.sleep(self._look)
        return read

    def _goes_on_elsewhere(self) -> bool:
        """Return whether another file has taken the place of this one; read that one from now on.

        It is left alone until its first line is complete.
        """
        try:
            other = self._path.open("rb")
        except FileNotFoundError:  # moved away, and the next one is not there yet
            return False
        mine, new = (os.fstat(file.fileno()) for file in (self._file, other))
        if os.path.samestat(mine, new):
            other.close()
            if new.st_size < self._file.tell():
                raise BadTable(f"{self._path} became shorter: start the command again")
            return False
        line = other.readline()
        if not line.endswith(b"\n"):
            other.close()
            return False
        if line != self._header:
            other.seek(0)
        self._file.close()
        self._file = other
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
