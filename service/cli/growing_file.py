"""Reads a file while it grows."""

import io
import time
from pathlib import Path

from service.cli.table_files import BadTable

_LOOK_SECONDS = 0.2  # between two checks whether the file has grown


class GrowingFile(io.RawIOBase):
    """A file to which others append. Reading waits at its end for more.

    `lines` is the number of lines that it had when it was opened.
    """

    def __init__(self, path: Path, look_seconds: float = _LOOK_SECONDS) -> None:
        self._path, self._look = path, look_seconds
        self._file = path.open("rb")
        self.lines = sum(block.count(b"\n") for block in iter(lambda: self._file.read(2**20), b""))
        self._file.seek(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read the next bytes. Wait if there are none. Raises BadTable if the file shrinks."""
        while not (read := self._file.readinto(buffer)):
            if self._path.stat().st_size < self._file.tell():
                raise BadTable(f"{self._path} became shorter: start the command again")
            time.sleep(self._look)
        return read

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
