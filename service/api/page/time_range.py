"""The time range in the address of a page. All panels of the page share it."""

from typing import NamedTuple

from service.domain.history import HOUR
from service.timestamps import EARLIEST, LATEST, rfc3339, unix_seconds

SPANS = {
    "1h": 3600, "6h": 6 * 3600, "24h": 86_400, "7d": 7 * 86_400, "30d": 30 * 86_400,
    "90d": 90 * 86_400,
}  # fmt: skip
DEFAULT = "24h"
_BESIDE_SECONDS = 600.0  # least time before and after an incident


class TimeRange(NamedTuple):
    """The time from `start` to `end`, in seconds since 1970.

    `span` is the name of a range that ends now, None for any other range.
    """

    start: float
    end: float
    span: str | None

    @property
    def seconds(self) -> float:
        """The length of the range in seconds."""
        return self.end - self.start

    @property
    def query(self) -> dict[str, str | None]:
        """The range as query parameters of the API."""
        return {"from": rfc3339(self.start), "to": rfc3339(self.end)}

    def place(self, at: str) -> float:
        """Return where an RFC 3339 time lies in the range, from 0 at its start to 1 at its end."""
        return ((unix_seconds(at) or 0.0) - self.start) / self.seconds


def around(start: str, end: str) -> TimeRange:
    """Return a range that shows what went on from `start` to `end`, both in RFC 3339.

    It begins at a whole hour: of old rows the history has one bucket for each hour.

    >>> around("1970-01-01T02:30:00Z", "1970-01-01T02:30:00Z")
    TimeRange(start=7200.0, end=9600.0, span=None)
    >>> around("0001-01-02T00:00:00Z", "9999-12-31T00:00:00Z").query["to"]
    '9999-12-31T00:00:00.000Z'
    """
    first, last = unix_seconds(start) or 0.0, unix_seconds(end) or 0.0
    beside = max(_BESIDE_SECONDS, (last - first) / 10)
    start_hour = max((first - beside) // HOUR * HOUR, EARLIEST)
    return TimeRange(start_hour, min(last + beside, LATEST), None)


def parse(span: str | None, start: str | None, end: str | None, now: float) -> TimeRange:
    """Return the range of a page's address, or the last day if the address has no valid range.

    >>> parse("1h", None, None, 7200.0)
    TimeRange(start=3600.0, end=7200.0, span='1h')
    """
    if start and end:
        try:
            first, last = unix_seconds(start), unix_seconds(end)
        except (ValueError, OverflowError):
            first = last = None
        if first is not None and last is not None and first < last:
            return TimeRange(first, last, None)
    span = span if span in SPANS else DEFAULT
    return TimeRange(now - SPANS[span], now, span)
