"""Times as text (RFC 3339, UTC) and as seconds since 1970."""

from datetime import UTC, datetime
from typing import Any

EARLIEST, LATEST = -62_135_510_400.0, 253_402_214_400.0  # the years 1 to 9999


def rfc3339(unix: float | None) -> str | None:
    """Return the time, in seconds since 1970, as RFC 3339 in UTC with milliseconds."""
    if unix is None:
        return None
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def minute(unix: float) -> str:
    """Return the time, in seconds since 1970, as a day and a minute, UTC.

    >>> minute(1795861173)
    '28 Nov 10:19'
    """
    at = datetime.fromtimestamp(unix, UTC)
    return f"{at.day} {at:%b %H:%M}"


def unix_seconds(created_at: Any) -> float | None:
    """Return RFC 3339 text, or a number of seconds, as seconds since 1970; None stays None."""
    if isinstance(created_at, str):
        return datetime.fromisoformat(created_at).timestamp()
    return None if created_at is None else float(created_at)
