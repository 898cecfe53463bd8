"""Reads a file while it grows."""

import io
import os
import time
from pathlib import Path

_LOOK_SECONDS = 0.2  # between two checks whether the file has grown


class GrowingFile(io.RawIOBase):
    """A file to which others append. Reading waits at its end for more.

    When logs are rotated, another file takes its place, or the file is cut off and begins anew.
    Reading then goes on there, without the header that both begin with. `lines` is the number of
    lines that the file had when it was opened.
    """

    def __init__(self, path: Path, look_seconds: float = _LOOK_SECONDS) -> None:
        self._path, self._look = path, look_seconds
        self._file = path.open("rb")
        self.lines = sum(block.count(b"\n") for block in iter(lambda: self._file.read(2**20), b""))
        self._file.seek(0)
        self._head, self._header = 1, b""  # how many lines precede the rows, and the last of them
        self._last = b"\n"  # the latest byte read

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Read the next bytes. Wait if there are none."""
        while not (read := self._file.readinto(buffer)):
            if (other := self._successor()) is None:
                time.sleep(self._look)
            elif read := self._file.readinto(buffer):  # written since the first try
                other.close()
                break
            else:
                self._file.close()
                self._file = other
                if self._last != b"\n":  # what begins the other file is a line of its own
                    buffer[:1], read = b"\n", 1
                    break
        self._last = bytes(buffer[read - 1 : read])
        return read

    def note_head(self, lines: int) -> None:
        """Note the first `lines` lines: a title, the header, units. The next file has them, too."""
        place = self._file.tell()
        self._file.seek(0)
        self._head = lines
        *_, self._header = [self._file.readline() for _ in range(lines)]
        self._file.seek(place)

    def _successor(self) -> io.BufferedReader | None:
        """Return the file that has taken the place of this one, once its head is complete.

        It is open behind the head, if that ends like the head of the first file.
        """
        if not self._header:
            self.note_head(1)
        try:
            other = self._path.open("rb")
        except FileNotFoundError:  # moved away, and the next one is not there yet
            return None
        mine, new = (os.fstat(file.fileno()) for file in (self._file, other))
        cut_off = new.st_size < self._file.tell()
        lines = [other.readline() for _ in range(self._head)]
        if (os.path.samestat(mine, new) and not cut_off) or not lines[-1].endswith(b"\n"):
            other.close()
            return None
        if lines[-1] != self._header:
            other.seek(0)
        return other

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
