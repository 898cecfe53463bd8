"""Reads a file while it grows, and reads lines of JSON as a table."""

import io
import json
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from models.columns import quoted
from service.cli.dialect import CountedStream, Dialect, TextTable
from service.cli.table_files import BadTable

_LOOK_SECONDS = 0.2  # between two checks whether the file has grown
_ASIDE = ("timestamp", "source", "id")


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


def is_json_lines(head: bytes) -> bool:
    """Return whether a file that begins with `head` has one JSON object in each line."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def json_lines(file: str, source: BinaryIO) -> TextTable:
    """Return lines of JSON as a table. The names in the first line are its header.

    A line is a flat object, or `{"record": {...}, "timestamp", "source", "id"}`. Raises BadTable.
    """
    objects = _objects(file, source)
    line, first = next(objects, (0, {}))
    if not first:
        raise BadTable(f"{file} is empty")
    header = list(first)

    def rows() -> Iterator[tuple[int, list[str]]]:
        yield line, header
        for number, found in chain([(line, first)], objects):
            if unknown := found.keys() - first.keys():
                raise BadTable(
                    f"{file}, line {number}: {quoted(sorted(unknown))} is missing in line {line}"
                )
            yield number, [_cell(found.get(name)) for name in header]

    return TextTable(file, Dialect(), rows(), CountedStream(io.BytesIO()))


def _objects(file: str, source: BinaryIO) -> Iterator[tuple[int, dict[str, object]]]:
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            found = json.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise BadTable(f"{file}, line {number}: not JSON") from None
        record = found.get("record") if isinstance(found, dict) else None
        if isinstance(record, dict):
            found = record | {name: found[name] for name in _ASIDE if name in found}
        if not isinstance(found, dict) or not found:
            raise BadTable(f"{file}, line {number}: not an object of column names and values")
        yield number, found


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
