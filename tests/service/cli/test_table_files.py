"""Tables of vectors: their batches, and the places that errors name."""

import io

import numpy as np
import pytest

from service.cli import table_files
from service.cli.table_files import BadTable


def _read(path) -> tuple[np.ndarray, list]:
    batches = list(table_files.read(path))
    return np.vstack([b.vectors for b in batches]), batches


def test_npy_is_read_in_batches(tmp_path):
    """The batches of a large matrix together are the matrix."""
    matrix = np.arange(24_000, dtype=np.int64).reshape(12_000, 2)
    np.save(tmp_path / "x.npy", matrix)
    vectors, batches = _read(tmp_path / "x.npy")
    np.testing.assert_array_equal(vectors, matrix)
    assert [len(b.vectors) for b in batches] == [5000, 5000, 2000]
    assert batches[2].places[1] == 10001


@pytest.mark.parametrize("array", [np.zeros(3), np.array([["a"]]), np.zeros((0, 3))])
def test_npy_that_is_no_matrix_is_refused(tmp_path, array):
    """An NPY file other than a matrix of numbers with rows is refused."""
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BadTable, match="give a matrix of numbers"):
        list(table_files.read(tmp_path / "x.npy"))


def test_pickled_npy_is_refused(tmp_path):
    """A pickle inside an NPY file is never loaded."""
    np.save(tmp_path / "x.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(BadTable, match="Python objects"):
        list(table_files.read(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00" + b"{((((".ljust(0x76)]
)
def test_files_that_are_not_npy_are_refused(tmp_path, content):
    """An empty file, an archive and a broken header are refused."""
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(BadTable, match=r"not an \.npy file of numbers"):
        list(table_files.read(tmp_path / "x.npy"))


def test_parquet_columns_are_text_by_name(tmp_path):
    """The columns of a Parquet file are text by name; a missing value is empty."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"a": [1.0, None], "b": [3, 4]}), tmp_path / "x.parquet")
    types, batches = table_files.parquet(tmp_path / "x.parquet")
    assert list(types) == ["a", "b"]
    assert list(batches) == [(1.0, [["1.0", "3"], ["", "4"]])]


def test_standard_input_is_read_as_npy(monkeypatch):
    """`-` reads NPY from standard input."""
    body = io.BytesIO()
    np.save(body, np.array([[1.0, 2.0]]))
    body.seek(0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(body)))
    vectors, _ = _read(table_files.Path("-"))
    np.testing.assert_array_equal(vectors, [[1, 2]])
