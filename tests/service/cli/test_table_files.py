"""Tables of vectors: what is read, in which batches, and how errors name the place."""

import io

import numpy as np
import pytest

from service.cli import table_files
from service.cli.table_files import BadTable


def _read(path) -> tuple[np.ndarray, list]:
    batches = list(table_files.read(path))
    return np.vstack([b.vectors for b in batches]), batches


@pytest.mark.parametrize("header", ["", "a,b\n"])
def test_csv_with_and_without_header(tmp_path, header):
    """A first line without any number is a header; rows keep the line they stand on."""
    file = tmp_path / "x.csv"
    file.write_text(header + "1,2\n\n3.5,-4e2\n")
    vectors, (batch,) = _read(file)
    np.testing.assert_array_equal(vectors, np.float32([[1, 2], [3.5, -400]]))
    assert vectors.dtype == np.float32
    first = 2 if header else 1
    assert batch.where(1) == f"{file}, line {first + 2}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,x\n", r"line 2, column 2: not a number"),
        ("1,2\n3\n", r"line 2: 1 fields where the first line has 2"),
        ("a,b\n1,\n", r"line 2, column 2: not a number"),
        ("", "is empty"),
        ("a,b\n", "a header and nothing else"),
    ],
)
def test_bad_csv_names_the_place(tmp_path, text, message):
    """What is not a table of numbers is refused by line and column."""
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(BadTable, match=message):
        list(table_files.read(file))


def test_npy_in_batches(tmp_path):
    """A large matrix comes in batches that are the matrix, row by row."""
    matrix = np.arange(24_000, dtype=np.int64).reshape(12_000, 2)
    np.save(tmp_path / "x.npy", matrix)
    vectors, batches = _read(tmp_path / "x.npy")
    np.testing.assert_array_equal(vectors, matrix)
    assert [len(b.vectors) for b in batches] == [5000, 5000, 2000]
    assert batches[2].where(1).endswith("row 10001")


@pytest.mark.parametrize("array", [np.zeros(3), np.array([["a"]]), np.zeros((0, 3))])
def test_npy_of_something_else_is_refused(tmp_path, array):
    """Only a matrix of numbers with rows is one."""
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BadTable, match="wanted is a matrix of numbers"):
        list(table_files.read(tmp_path / "x.npy"))


def test_pickled_npy_is_refused(tmp_path):
    """A pickle inside an NPY file is never loaded."""
    np.save(tmp_path / "x.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(BadTable, match="Python objects"):
        list(table_files.read(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00" + b"{((((".ljust(0x76)]
)
def test_what_only_claims_to_be_npy_is_refused(tmp_path, content):
    """An empty file, an archive, a broken header: refused, whatever numpy makes of them."""
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(BadTable, match=r"not an \.npy file of numbers"):
        list(table_files.read(tmp_path / "x.npy"))


def test_parquet(tmp_path):
    """Columns of a Parquet file are the features, in their order."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"a": [1.0, 2.0], "b": [3, 4]}), tmp_path / "x.parquet")
    vectors, _ = _read(tmp_path / "x.parquet")
    np.testing.assert_array_equal(vectors, [[1, 3], [2, 4]])


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_standard_input(tmp_path, monkeypatch, kind):
    """`-` reads CSV or NPY from standard input, whichever it is."""
    body = io.BytesIO(b"1,2\n")
    if kind == "npy":
        body = io.BytesIO()
        np.save(body, np.array([[1.0, 2.0]]))
        body.seek(0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(body)))
    vectors, _ = _read(table_files.Path("-"))
    np.testing.assert_array_equal(vectors, [[1, 2]])
