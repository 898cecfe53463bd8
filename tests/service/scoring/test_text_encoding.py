"""A body in another encoding than UTF-8 is distinguished from one that is not JSON."""

import codecs

import pytest

from service.problems import BadVectors
from service.scoring import json_vectors
from service.scoring.text_encoding import foreign_encoding

TEXT = '{"vectors": [[1.0, 2.0]]}'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (codecs.BOM_UTF8 + TEXT.encode(), "byte order mark"),
        (TEXT.encode("utf-16"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "UTF-16"),
        (TEXT.encode("utf-16-be"), "UTF-16"),
        (TEXT.encode("utf-32"), "UTF-32"),
    ],
)
def test_another_encoding_is_named(body, words):
    """The answer names the encoding and says what to send instead."""
    assert words in (foreign_encoding(body) or "")
    with pytest.raises(BadVectors, match=words):
        json_vectors.read(body, 2)


@pytest.mark.parametrize("body", [TEXT.encode(), b"", b"{", b"\0\0", "ä".encode(), b"[1]"])
def test_other_bodies_are_left_to_the_reader(body):
    """UTF-8, and bytes that are not text, are left to the reader."""
    assert foreign_encoding(body) is None
