"""Rewrites heads of requests where the standard demands it."""

import httptools

from service.api.fast_lane.response_bytes import Headers


def without_upgrade(line: bytes, headers: Headers) -> bytes:
    """Return the head with the request line `line` and `headers`, without the offer to upgrade."""
    lines = [line]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            kept = [token for token in tokens if token and token.lower() != b"upgrade"]
            if kept:
                lines.append(b"connection: " + b", ".join(kept))
        elif name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


def with_host_of(url: bytes, headers: Headers) -> Headers:
    """Return the headers with the host of a target in absolute form (RFC 9112, 3.2.2)."""
    authority = url.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
    if not authority:
        return headers
    return [(name, authority if name == b"host" else value) for name, value in headers]


def has_path(url: bytes) -> bool:
    """Return whether a target in absolute form is a valid URL with a path."""
    try:
        return httptools.parse_url(url).path is not None
    except httptools.HttpParserInvalidURLError:
        return False
