"""Scripts and style sheets of the page. Their addresses contain a hash of their contents."""

import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """One file: its bytes and its media type."""

    data: bytes
    content_type: str


@cache
def assets() -> dict[str, Asset]:
    """Return every script and style sheet by file name."""
    return {
        file.name: Asset(
            file.read_bytes(),
            _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "text/plain",
        )
        for file in sorted(FOLDER.iterdir())
    }


@cache
def digest() -> str:
    """Return the sha256 over all files, which is part of their addresses."""
    total = hashlib.sha256()
    for name, asset in assets().items():
        total.update(f"{name}:{len(asset.data)}:".encode())
        total.update(asset.data)
    return total.hexdigest()


def address(name: str) -> str:
    """Return the path of a file. Raises KeyError if there is no file of this name."""
    if name not in assets():
        raise KeyError(name)
    return f"/static/{digest()}/{name}"
