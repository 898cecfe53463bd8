"""Times as text (RFC 3339, UTC) and as seconds since 1970."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

EARLIEST, LATEST = -62_135_510_400.0, 253_402_214_400.0  # the years 1 to 9999


def rfc3339(unix: float | None) -> str | None:
    """Return the time, in seconds since 1970, as RFC 3339 in UTC with milliseconds."""
    if unix is None:
        return None
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def day_and_time(unix: float, clock: str = "%H:%M", now: float | None = None) -> str:
    """Return a time, given in seconds since 1970, as the day and the time of day in UTC.

    The year is named unless it is the year of `now`, by default the present time. `clock` is the
    format of the time of day, as in strftime.

    >>> now = 1795861173
    >>> day_and_time(now, now=now), day_and_time(0, "%H:%M:%S", now)
    ('28 Nov 10:19', '1 Jan 1970 00:00:00')
    """
    at, today = datetime.fromtimestamp(unix, UTC), datetime.fromtimestamp(now or time.time(), UTC)
    year = "" if at.year == today.year else f"{at.year} "
    return f"{at.day} {at:%b} {year}{at:{clock}}"


_SIXTIETH = re.compile(r"(?<=\d\d:\d\d:)60(?!\d)")


def moment(
    text: str, zone: tzinfo = UTC, read: Callable[[str], datetime] = datetime.fromisoformat
) -> datetime:
    """Return the time that `read` finds in a text. Raises ValueError for other text.

    A leap second (a second 60 at the end of a month in UTC) is read as the second after it. To find
    that end, a time without a zone counts as a time in `zone`.

    >>> moment("2016-12-31T23:59:60Z").isoformat()
    '2017-01-01T00:00:00+00:00'
    """
    try:
        return read(text)
    except ValueError:
        after = read(_SIXTIETH.sub("59", text, count=1)) + timedelta(seconds=1)
        there = (after if after.tzinfo else after.replace(tzinfo=zone)).astimezone(UTC)
        if (there.day, there.hour, there.minute, there.second) != (1, 0, 0, 0):
            raise
        return after


def unix_seconds(at: str | float | None) -> float | None:
    """Return RFC 3339 text, or a number of seconds, as seconds since 1970; None stays None."""
    if isinstance(at, str):
        return moment(at).timestamp()
    return None if at is None else float(at)
