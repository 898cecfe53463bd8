"""Bounds on the bytes of one connection that are neither body nor answer.

Every byte counts against one of these bounds: the head of a request, what frames its body (sizes
and extensions of chunks, trailers), and what comes between two requests. The HTTP parser collects a
header that is not complete, and says nothing of chunk extensions, so bytes are counted as they
come: exactly once a head is complete, and at least by the packets that lie wholly in one part.
"""

from collections.abc import Collection

from service.problems import BadRequest, HeadTooLarge, Problem

HEAD_BYTES = 64 * 1024  # of request line and headers
HEADERS = 256  # of one request: kept, a short one takes twenty times its bytes
_FRAME_BYTES = 64 * 1024  # of chunk sizes, extensions and trailers, and one for each of the body
_LEAST_FRAME = 5  # bytes of a chunk's size and line ends
_BETWEEN_BYTES = 64 * 1024  # of empty lines before a request


class ByteBounds:
    """Counts for the request that is being read; each method returns what is wrong, if anything."""

    __slots__ = ("_body", "_content", "_headers", "_late", "_pieces", "_trailers", "_whole")

    def __init__(self) -> None:
        self._trailers = 0
        self.turn()

    def turn(self) -> None:
        """Begin a head or a body, amid the packet that is being parsed."""
        self._late = 0
        self._content = 0
        self._body = 0
        self._pieces = 0
        self._headers = 0
        self._trailers = 0
        self._whole = False

    def header(self, size: int, before: int) -> Problem | None:
        """Count a header of `size` bytes, name and value, with so many `before` it."""
        self._headers += size + 4
        return _HEAD if self._headers > HEAD_BYTES or before >= HEADERS else None

    def head(
        self, authorization: bytes | None, url: bytes, headers: Collection[tuple[bytes, bytes]]
    ) -> Problem | None:
        """Count a head that is complete."""
        size = len(url) + len(authorization or b"")
        size += sum(len(name) + len(value) + 4 for name, value in headers)
        return _HEAD if size > HEAD_BYTES or len(headers) > HEADERS else None

    def trailer(self, size: int) -> Problem | None:
        """Count a trailer of `size` bytes, name and value."""
        self._trailers += size + 4
        return _FRAME if self._trailers > _FRAME_BYTES else None

    def content(self, size: int) -> Problem | None:
        """Count `size` bytes of the body, which the parser reported as one piece.

        A body that is not chunked has one piece in each packet, and others one for each chunk.
        """
        self._content += size
        self._pieces += 1
        self._body += size
        return _FRAME if _LEAST_FRAME * self._pieces > _FRAME_BYTES + self._body else None

    def packet_of_head(self, size: int, headers: int) -> Problem | None:
        """Count a packet that ended amid a head, which has so many headers until now."""
        return _HEAD if self._packet(size) > HEAD_BYTES or headers > HEADERS else None

    def packet_of_body(self, size: int) -> Problem | None:
        """Count a packet that ended amid a body or its trailers."""
        framing = self._packet(size) - self._content
        most = _FRAME_BYTES + self._content
        return _FRAME if self._late and framing > most else None

    def packet_between(self, size: int) -> Problem | None:
        """Count a packet that holds no part of a request."""
        return _BETWEEN if self._packet(size) > _BETWEEN_BYTES else None

    def _packet(self, size: int) -> int:
        # Of a packet in which the part began, only what the parser reported is known.
        if self._whole:
            self._late += size
        else:
            self._whole = True
            self._content = 0
        return self._late


_HEAD = HeadTooLarge(f"A request's head has at most {HEAD_BYTES} bytes and {HEADERS} headers.")
_FRAME = HeadTooLarge(
    f"What frames a body (sizes and extensions of chunks, trailers) has at most {_FRAME_BYTES} "
    f"bytes, and one more for each byte of the body."
)
_BETWEEN = BadRequest(f"At most {_BETWEEN_BYTES} bytes of empty lines come before a request.")
