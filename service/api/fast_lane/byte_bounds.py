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

    __slots__ = (
        "_body_bytes", "_body_pieces", "_first_passed", "_header_bytes", "_later_bytes",
        "_later_content", "_trailer_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin to count a head or a body. It begins within the packet that is being parsed."""
        self._later_bytes = 0
        self._later_content = 0
        self._body_bytes = 0
        self._body_pieces = 0
        self._header_bytes = 0
        self._trailer_bytes = 0
        self._first_passed = False

    def header(self, size: int, before: int) -> Problem | None:
        """Count a header of `size` bytes (name and value) that follows `before` other headers."""
        self._header_bytes += size + 4
        return _HEAD if self._header_bytes > HEAD_BYTES or before >= HEADERS else None

    def head(
        self, authorization: bytes | None, url: bytes, headers: Collection[tuple[bytes, bytes]]
    ) -> Problem | None:
        """Count a complete head."""
        size = len(url) + len(authorization or b"")
        size += sum(len(name) + len(value) + 4 for name, value in headers)
        return _HEAD if size > HEAD_BYTES or len(headers) > HEADERS else None

    def trailer(self, size: int) -> Problem | None:
        """Count a trailer of `size` bytes (name and value)."""
        self._trailer_bytes += size + 4
        return _FRAME if self._trailer_bytes > _FRAME_BYTES else None

    def content(self, size: int) -> Problem | None:
        """Count `size` bytes of the body that the parser reported as one piece.

        A chunked body has at least one piece for each chunk, another body one for each packet.
        """
        self._later_content += size
        self._body_pieces += 1
        self._body_bytes += size
        least = _LEAST_FRAME * self._body_pieces
        return _FRAME if least > _FRAME_BYTES + self._body_bytes else None

    def packet_of_head(self, size: int, headers: int) -> Problem | None:
        """Count a packet that ended within a head, which has had `headers` headers so far."""
        return _HEAD if self._later_packets(size) > HEAD_BYTES or headers > HEADERS else None

    def packet_of_body(self, size: int) -> Problem | None:
        """Count a packet that ended within a body or its trailers."""
        framing = self._later_packets(size) - self._later_content
        most = _FRAME_BYTES + self._later_content
        return _FRAME if self._later_bytes and framing > most else None

    def packet_between(self, size: int) -> Problem | None:
        """Count a packet that holds no part of a request."""
        return _BETWEEN if self._later_packets(size) > _BETWEEN_BYTES else None

    def _later_packets(self, size: int) -> int:
        # The first packet is not counted: it also holds an unknown number of bytes from before.
        if self._first_passed:
            self._later_bytes += size
        else:
            self._first_passed = True
            self._later_content = 0
        return self._later_bytes


_HEAD = HeadTooLarge(f"A head may have at most {HEAD_BYTES} bytes and {HEADERS} headers.")
_FRAME = HeadTooLarge(
    f"The framing of a body (chunk sizes, chunk extensions, trailers) may have at most "
    f"{_FRAME_BYTES} bytes, and one more for each byte of the body."
)
_BETWEEN = BadRequest(f"A request may follow at most {_BETWEEN_BYTES} bytes of empty lines.")
