"""Detects JSON in a wrong encoding (UTF-16, UTF-32, or with a byte order mark)."""

import codecs

_MARKS = (
    (codecs.BOM_UTF32_LE, "is in UTF-32"),
    (codecs.BOM_UTF32_BE, "is in UTF-32"),
    (codecs.BOM_UTF16_LE, "is in UTF-16"),
    (codecs.BOM_UTF16_BE, "is in UTF-16"),
    (codecs.BOM_UTF8, "begins with a byte order mark"),
)


def foreign_encoding(body: bytes) -> str | None:
    """Return an error text for a body in a wrong encoding, or None for any other body."""
    for mark, words in _MARKS:
        if body.startswith(mark):
            return f"The body {words}: send UTF-8 without a byte order mark."
    head = body[:4]
    # JSON begins with two ASCII characters. In UTF-16, one byte of each of them is zero.
    if len(head) >= 2 and (head[0] == 0) != (head[1] == 0):
        return "The body is in UTF-16: send UTF-8 without a byte order mark."
    return None
