"""The two readers of JSON give the same results: the fast one, and the one that names errors."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.problems import BadVectors
from service.scoring import json_vectors

pytest.importorskip("simdjson")

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["0", "-0", "-0.0", "1E+5", "1e-5", "1.5e300", "3.4028235677973366e+38", "1e-999",
         "9007199254740993", "18446744073709551615", "18446744073709551616",
         "-9223372036854775808", "-9223372036854775809", "4.9e-324", "0.1e1"]
    ),
)  # fmt: skip
ODD = st.sampled_from(
    ["true", "null", '"1"', "NaN", "Infinity", "-Infinity", "1e999", "[]", "[1]", "[[1]]", "{}",
     '{"a":1}', "01", "1.", ".5", "+1", "", " ", "0x1", "1e", "-", "'", "\\u0031"]
)  # fmt: skip
CELLS = st.one_of(NUMBERS, NUMBERS, NUMBERS, NUMBERS, ODD)
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t ", "\x0c", "\ufeff"])
HEADS = st.sampled_from(
    ['{"vectors":', '{ "vectors" : ', '{"vect\\u006frs":', '{"vectors":[[1]],"vectors":', "",
     '{"a":[[1]],"vectors":', '{"vectors ":', '{"timestamps":[],"vectors":', '\ufeff{"vectors":']
)  # fmt: skip
TAILS = st.sampled_from(
    ["}", "}", "}", "", " }\n", "}x", "}}", ',"a":1}', ',"vectors":[[1]]}', "\0"]
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw a body that is almost a matrix in JSON, with rows of about the same width."""
    width = draw(st.integers(1, 4))
    space = draw(SPACE)
    odd = draw(st.booleans())
    cell = CELLS if odd else NUMBERS
    rows = draw(
        st.lists(st.lists(cell, min_size=width, max_size=width + odd), min_size=1, max_size=8)
    )
    lists = ["[" + f"{space},{space}".join(row) + "]" for row in rows]
    if odd and draw(st.booleans()):
        lists.insert(draw(st.integers(0, len(lists))), draw(CELLS))
    head, tail = (draw(HEADS), draw(TAILS)) if odd else ('{"vectors":', "}")
    return f"{head}{space}[{f',{space}'.join(lists)}]{tail}".encode()


def outcome(body: bytes, width: int | None) -> object:
    """Return the matrix as bytes with its shape, or the whole problem."""
    try:
        X = json_vectors.read(body, width)
    except BadVectors as problem:
        return problem.to_bytes()
    assert X.dtype == np.float32
    return X.shape, X.tobytes()


def assert_readers_agree(
    body: bytes, width: int | None, patch: pytest.MonkeyPatch, piece: int
) -> None:
    """Fail if the two readers differ on `body`, read in pieces of `piece` bytes."""
    with patch.context() as patched:
        patched.setattr(json_vectors, "PIECE", piece)
        fast = outcome(body, width)
        patched.setattr(json_vectors, "QUICK", False)
        assert outcome(body, width) == fast


@pytest.fixture(scope="module")
def patch() -> pytest.MonkeyPatch:
    """Return a patch that lasts for all examples of one test."""
    return pytest.MonkeyPatch()


@settings(max_examples=600)
@given(bodies(), st.sampled_from([None, 1, 2, 3]), st.sampled_from([16, 2**18]))
@example(b'{"vectors":[[1,[]],[2,3,4]]}', 2, 2**18)
@example(b'{"vectors":[[1,[]],[[2,3],4]]}', 2, 2**18)
@example(b'{"vectors":[[[1,2]],[[3]],[[]]]}', 1, 2**18)
@example(b'{"vectors":[1,[2]]}', 1, 2**18)
@example(b'{"vectors":[[1],[]]}', 1, 2**18)
@example(b'{"vectors":[]}', None, 2**18)
@example(b'{"vectors":[[1,2],[3,4]]}', 3, 2**18)
@example(b'{"vectors":' + b"[" * 2000 + b"1" + b"]" * 2000 + b"}", None, 2**18)
def test_the_fast_reader_changes_nothing(
    patch: pytest.MonkeyPatch, body: bytes, width: int | None, piece: int
) -> None:
    """Both readers give the same matrices bit for bit, and the same problems, also in pieces."""
    assert_readers_agree(body, width, patch, piece)


def test_any_damage_is_read_alike(patch: pytest.MonkeyPatch) -> None:
    """If bytes are lost, added, changed or repeated, both readers give the same result."""
    rng = random.Random(0)
    valid = b'{"vectors": [[0.5, -1e3, 7], [1, 2, 3], [4.25, 5, 6e-1], [7, 8, 9]]}'
    for _ in range(4000):
        body = bytearray(valid)
        for _ in range(rng.randint(1, 3)):
            at, to = sorted(rng.randrange(len(body) + 1) for _ in range(2))
            to = min(to, at + 6)
            body[at:to] = rng.choice(
                [b"", body[at:to] * 2, rng.randbytes(1), bytes([rng.choice(b'[]{},":0e.- tN')])]
            )
        assert_readers_agree(bytes(body), rng.choice([None, 3]), patch, rng.choice([20, 2**18]))


def test_the_fast_reader_is_used() -> None:
    """A valid body never reaches the slow reader; otherwise these tests would compare nothing."""
    assert json_vectors.QUICK
    X = json_vectors.quick(b' {"vectors" : [[1, 2.5],\n[-3e2, 4]]} ', 2, whole=True)
    assert X is not None
    assert X.tolist() == [[1, 2.5], [-300, 4]]
    assert json_vectors.quick(b"[[1, 2], [3, 4]]", None, whole=False) is not None
    assert json_vectors.quick(b'{"vectors": [[1, 2], [3, [4]]]}', 2, whole=True) is None


def test_a_null_without_impute_says_what_to_set() -> None:
    """A client whose data has gaps learns how to send them."""
    with pytest.raises(BadVectors, match="set `missing` to `impute` in the config"):
        json_vectors.read(b'{"vectors": [[1, 2], [3, null]]}', 2)
