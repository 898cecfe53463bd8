"""The largest bodies that are judged in the event loop."""

from typing import NamedTuple

# What reading a body costs bounds it, however cheap the score is: about four milliseconds.
MOST_JSON = 768 * 1024  # where the fast reader is installed
MOST_OCTETS = 256 * 1024


class InlineBounds(NamedTuple):
    """Bytes, by media type; a larger body is judged in a thread."""

    json: int = MOST_JSON
    octets: int = MOST_OCTETS
    npy: int = MOST_OCTETS // 4


WIDEST = InlineBounds()  # of a version that costs next to nothing
