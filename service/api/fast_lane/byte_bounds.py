"""Bounds on the received bytes of one connection that are not the content of a body.

Every such byte counts against one of three bounds: the head of a request, the framing of its body
(chunk sizes, chunk extensions, trailers), and the bytes between two requests. The HTTP parser
reports neither an incomplete header nor chunk extensions. So the packets that lie wholly in one of
the three parts are counted as they arrive. A complete head is counted exactly.
"""

from collections.abc import Collection

from service.problems import BadRequest, HeadTooLarge, Problem

HEAD_BYTES = 64 * 1024  # request line and headers
HEADERS = 256  # headers of one request; a short one takes twenty times its bytes in memory
_FRAME_BYTES = 64 * 1024  # framing of a body; one more is allowed for each byte of the body
_LEAST_FRAME = 5  # the least bytes that frame one chunk: its size and line ends
_BETWEEN_BYTES = 64 * 1024  # empty lines before a request


class ByteBounds:
    """Counts the bytes of the request that is being read.

    Each counting method returns the problem if its bound is passed, else None.
    """

    __slots__ = ("_body", "_content", "_headers", "_late", "_pieces", "_trailers", "_whole")

    def __init__(self) -> None:
        self._trailers = 0
        self.turn()

    def turn(self) -> None:
        """Begin to count a head or a body. It begins within the packet that is being parsed."""
        self._late = 0
        self._content = 0
        self._body = 0
        self._pieces = 0
        self._headers = 0
        self._trailers = 0
        self._whole = False

    def header(self, size: int, before: int) -> Problem | None:
        """Count a header of `size` bytes (name and value) that follows `before` other headers."""
        self._headers += size + 4
        return _HEAD if self._headers > HEAD_BYTES or before >= HEADERS else None

    def head(
        self, authorization: bytes | None, url: bytes, headers: Collection[tuple[bytes, bytes]]
    ) -> Problem | None:
        """Count a complete head."""
        size = len(url) + len(authorization or b"")
        size += sum(len(name) + len(value) + 4 for name, value in headers)
        return _HEAD if size > HEAD_BYTES or len(headers) > HEADERS else None

    def trailer(self, size: int) -> Problem | None:
        """Count a trailer of `size` bytes (name and value)."""
        self._trailers += size + 4
        return _FRAME if self._trailers > _FRAME_BYTES else None

    def content(self, size: int) -> Problem | None:
        """Count `size` bytes of the body that the parser reported as one piece.

        A chunked body has at least one piece for each chunk, another body one for each packet.
        """
        self._content += size
        self._pieces += 1
        self._body += size
        return _FRAME if _LEAST_FRAME * self._pieces > _FRAME_BYTES + self._body else None

    def packet_of_head(self, size: int, headers: int) -> Problem | None:
        """Count a packet that ended within a head, which has had `headers` headers so far."""
        return _HEAD if self._packet(size) > HEAD_BYTES or headers > HEADERS else None

    def packet_of_body(self, size: int) -> Problem | None:
        """Count a packet that ended within a body or its trailers."""
        framing = self._packet(size) - self._content
        most = _FRAME_BYTES + self._content
        return _FRAME if self._late and framing > most else None

    def packet_between(self, size: int) -> Problem | None:
        """Count a packet that holds no part of a request."""
        return _BETWEEN if self._packet(size) > _BETWEEN_BYTES else None

    def _packet(self, size: int) -> int:
        # The first packet also holds bytes from before this part. How many is not known, so it is
        # not counted.
        if self._whole:
            self._late += size
        else:
            self._whole = True
            self._content = 0
        return self._late


_HEAD = HeadTooLarge(f"A head may have at most {HEAD_BYTES} bytes and {HEADERS} headers.")
_FRAME = HeadTooLarge(
    f"The framing of a body (chunk sizes, chunk extensions, trailers) may have at most "
    f"{_FRAME_BYTES} bytes, and one more for each byte of the body."
)
_BETWEEN = BadRequest(f"A request may follow at most {_BETWEEN_BYTES} bytes of empty lines.")
