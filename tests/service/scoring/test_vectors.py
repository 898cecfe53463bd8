"""Bodies are read into matrices, or refused."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.problems import BadVectors, Problem, TooLarge, UnsupportedMedia
from service.scoring import json_vectors
from service.scoring import vectors as payload
from service.scoring.pieces import MAX_ROWS

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def parse(body: bytes, dimension: int | None = None) -> np.ndarray:
    """Read JSON."""
    return payload.matrix(payload.JSON, body, dimension)


def outcome(kind: str, body: bytes, dimension: int | None) -> int:
    """Return the status of the problem, or 200 for a finite matrix."""
    try:
        X = payload.matrix(kind, body, dimension)
    except Problem as problem:
        return problem.status
    return 200 if np.isfinite(X).all() else 500


@given(
    st.integers(1, 5).flatmap(
        lambda d: st.lists(st.lists(FLOATS, min_size=d, max_size=d), min_size=1)
    )
)
def test_json_is_read_back_bit_for_bit(rows: list[list[float]]) -> None:
    """JSON is read back bit for bit."""
    X = np.array(rows, np.float32)
    parsed = parse(json.dumps({"vectors": X.tolist()}).encode())
    assert parsed.dtype == np.float32
    assert parsed.flags.c_contiguous
    assert (parsed == X).all()


@given(st.binary(max_size=200), st.sampled_from(payload.MEDIA_TYPES), st.sampled_from([None, 1, 3]))
def test_any_bytes_give_a_matrix_or_a_problem(
    body: bytes, kind: str, dimension: int | None
) -> None:
    """Any bytes give a finite matrix or a problem with the client's request."""
    assert outcome(kind, body, dimension) in {200, 413, 415, 422}


@given(st.text(alphabet='{}[]"vectors:,0123456789.eE-+NaInfity \\ud', max_size=60))
def test_almost_valid_json_gives_a_matrix_or_a_problem(text: str) -> None:
    """An almost valid body gives a finite matrix or a problem with the client's request."""
    for body in (text, '{"vectors":' + text, '{"vectors":[[1,' + text):
        sent = body.encode("utf-8", "surrogatepass")
        assert outcome(payload.JSON, sent, None) in {200, 422}


def big() -> bytes:
    """Return a body that is read in pieces."""
    body = json.dumps({"vectors": [[0.125] * 8] * 20_000}).encode()
    assert len(body) > 4 * json_vectors.PIECE
    return body


def test_large_bodies_are_read_in_pieces() -> None:
    """Pieces make one matrix, whether or not the dimension is known."""
    for dimension in (None, 8):
        X = parse(big(), dimension)
        assert X.shape == (20_000, 8)
        assert (X == 0.125).all()


@pytest.mark.parametrize("piece", [0, 1, 2])
@pytest.mark.parametrize("bad", [b"NaN", b'"x"', b"1e99", b"true", b"[1]"])
def test_errors_in_large_bodies_have_their_place(piece: int, bad: bytes) -> None:
    """Row and column are counted from the beginning of the request, not of a piece."""
    body = big()
    cells = body.split(b"0.125")
    cell = (piece * json_vectors.PIECE // 64) * 8 + 5
    broken = b"0.125".join(cells[: cell + 1]) + bad + b"0.125".join(cells[cell + 1 :])
    with pytest.raises(BadVectors) as caught:
        parse(broken, 8)
    assert (caught.value.row, caught.value.column) == (cell // 8, 5)


def test_a_row_of_another_width_in_a_later_piece_is_named() -> None:
    """A row of another width in a later piece is named."""
    body = big().replace(b"]]}", b", 1]]}")
    with pytest.raises(BadVectors) as caught:
        parse(body)
    assert caught.value.row == 19_999


def test_too_many_rows_and_too_wide_rows_are_refused() -> None:
    """Too many rows are 413, too wide ones 422."""
    with pytest.raises(TooLarge):
        payload.matrix(payload.OCTETS, bytes(4 * (MAX_ROWS + 1)), 1)
    with pytest.raises(BadVectors):
        parse(json.dumps({"vectors": [[0] * (payload.MAX_DIMENSION + 1)]}).encode())


def test_media_types_are_normalised() -> None:
    """Parameters and case do not matter; a missing content type is refused."""
    for none in (None, "", "text/plain", "application/jsonp"):
        with pytest.raises(UnsupportedMedia):
            payload.media_type(none)
    assert payload.media_type("application/json;charset=utf-8") == payload.JSON
    assert payload.media_type("APPLICATION/X-NPY ; a=b") == payload.NPY


@pytest.mark.parametrize("n", [2, 40_000])
def test_null_and_nan_are_missing_values_if_gaps_are_accepted(n: int) -> None:
    """If gaps are taken, null in JSON and NaN in both binary types are missing values."""
    X = np.tile(np.float32([[1, np.nan, 3], [4, 5, 6]]), (n // 2, 1))
    text = json.dumps({"vectors": X.tolist()}).replace("NaN", "null").encode()
    stream = io.BytesIO()
    np.save(stream, X)
    bodies = {
        payload.JSON: text,
        payload.OCTETS: X.tobytes(),
        payload.NPY: stream.getvalue(),
    }
    for kind, body in bodies.items():
        np.testing.assert_array_equal(payload.matrix(kind, body, 3, gaps=True), X)
        with pytest.raises(BadVectors) as caught:
            payload.matrix(kind, body, 3)
        assert (caught.value.row, caught.value.column) == (0, 1)


@pytest.mark.parametrize(
    "body",
    ['[["1", 2]]', "[[true, 2]]", "[[null, null]]", "[[NaN, 2]]", "[[null, 1e39]]", "[null]"],
)
def test_only_null_is_accepted_as_a_gap(body: str) -> None:
    """Only null may stand in place of a number; a row of only null is refused."""
    with pytest.raises(BadVectors):
        payload.matrix(payload.JSON, f'{{"vectors": {body}}}'.encode(), 2, gaps=True)
