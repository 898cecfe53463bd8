"""The largest bodies that are judged in the event loop."""

from typing import NamedTuple

# Reading a body of this size takes about four milliseconds, whatever the score costs.
MOST_JSON = 768 * 1024  # if the fast JSON reader is installed
MOST_OCTETS = 256 * 1024


class InlineBounds(NamedTuple):
    """The most bytes of a body for each media type; a larger body is judged in a thread."""

    json: int = MOST_JSON
    octets: int = MOST_OCTETS
    npy: int = MOST_OCTETS // 4


WIDEST = InlineBounds()  # for a version whose score costs almost nothing
