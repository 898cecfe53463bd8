"""Stores on this machine how far `learn` has sent each file, so that a grown file is continued."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Self

import typer

from service.cli.sheet import Rows

FORMAT = 1
_MOST_FILES = 1000


def _journal() -> Path:
    return Path(typer.get_app_dir("anamnesis")) / "learned.json"


class SentBatches:
    """The batches of one file that were sent to a detector, as counts and digests of their rows.

    The first row identifies the file. If the record cannot be read or written, it is as if nothing
    was sent. The service still knows each batch of the last 24 hours by its idempotency key.
    """

    def __init__(self, *where: str, forget: bool = False) -> None:
        """`where` identifies the detector by its service, its name and when it was made."""
        self._where, self._key = "\n".join(where), ""
        self._forget, self._batches = forget, list[tuple[int, str]]()

    def rows(self, number: int, rows: Rows) -> int:
        """Return how many rows at the start of the file's batch `number` were sent before."""
        if number == 0:
            self._open(rows)
        if number >= len(self._batches):
            return 0
        count, digest = self._batches[number]
        if count <= len(rows.X) and digest_of(rows, count) == digest:
            return count
        del self._batches[number:]
        return 0

    def add(self, number: int, rows: Rows) -> None:
        """Store that the service has all `rows` of batch `number`."""
        self._batches[number:] = [(len(rows.X), digest_of(rows, len(rows.X)))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._batches:
            return
        files = _read()
        files.pop(self._key, None)
        files[self._key] = self._batches
        kept = dict(list(files.items())[-_MOST_FILES:])
        path = _journal()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.with_suffix(f".{os.getpid()}")
            written.write_text(json.dumps({"format": FORMAT, "files": kept}))
            written.replace(path)

    def _open(self, rows: Rows) -> None:
        first = digest_of(rows, 1)
        self._key = hashlib.sha256(f"{self._where}\n{first}".encode()).hexdigest()[:32]
        if not self._forget:
            self._batches = _read().get(self._key, [])


def digest_of(rows: Rows, count: int) -> str:
    """Return a digest of the first `count` rows of a batch."""
    X = rows.X[:count]
    digest = hashlib.sha256(f"{X.shape}/".encode())
    digest.update(X.tobytes() if X.dtype != object else repr(X.tolist()).encode())
    if rows.times is not None:
        digest.update(rows.times[:count].tobytes())
    digest.update("\0".join(rows.sources[:count] if rows.sources else ()).encode())
    return digest.hexdigest()[:40]


def _read() -> dict[str, list[tuple[int, str]]]:
    try:
        journal = json.loads(_journal().read_text())
        if journal["format"] != FORMAT:
            return {}
        files = journal["files"].items()
        return {key: [(int(n), str(digest)) for n, digest in batches] for key, batches in files}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}
