"""HTTP/1.1 responses as bytes, with the heads of the current second cached."""

from http import HTTPStatus

from service.api.middleware import ADDED
from service.scoring.answers import Reply

Headers = list[tuple[bytes, bytes]]


class ResponseEncoder:
    """Writes HTTP/1.1 heads, and caches those of the current second."""

    def __init__(self) -> None:
        self._defaults: Headers = []
        self._heads: dict[tuple[int, str], bytes] = {}

    def encode(self, reply: Reply, defaults: Headers, *, close: bool) -> bytes:
        """Return status line, headers and body. `defaults` are the server's headers, with Date."""
        if self._defaults is not defaults:
            self._defaults = defaults
            self._heads.clear()
        status, content_type, body, more = reply
        head = self._heads.get((status, content_type))
        if head is None:
            head = self._new_head(status, content_type)
        end = b"connection: close\r\n" if close else b""
        if more:
            end += b"".join(b"%b: %b\r\n" % field for field in reply.other_headers())
        return b"%b%d\r\n%b\r\n%b" % (head, len(body), end, body)

    def _new_head(self, status: int, content_type: str) -> bytes:
        fields = [*self._defaults, (b"content-type", content_type.encode()), *ADDED]
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
        lines += [b"%b: %b" % field for field in fields]
        head = b"\r\n".join([*lines, b"content-length: "])
        self._heads[status, content_type] = head
        return head
