import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from models.columns import Column
from service.cli.history_files import FileHistory, read
from service.cli.table_files import BadTable
from service.cli.text_table import Options

HEADER, ROW = "when,a,b,fault\n", "2026-01-01,1,2,0\n"


def written(path: Path, text: str) -> Path:
    """Write a CSV file and return its path."""
    file = path / "history.csv"
    file.write_text(text)
    return file


def test_columns_of_times_and_labels_are_no_features(tmp_path: Path):
    """Columns are named or numbered; the other columns are features, in order of time."""
    text = HEADER + "2026-01-02T00:00:00Z,1,2,0\n2026-01-01,3,4,anomaly\n1767398400,5,6,0\n"
    file = written(tmp_path, text)
    for time, label in (("when", "fault"), ("1", "4")):
        history = read(file, Options(time), label)
        assert named(history) == ["a", "b"]
        assert history.vectors[:].tolist() == [[3, 4], [1, 2], [5, 6]]
        assert history.anomalous is not None
        assert history.anomalous[:].tolist() == [True, False, False]
        assert history.times is not None
        assert history.times[0] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def named(history: FileHistory) -> list[str]:
    """Return the names of the columns to judge."""
    return [column.name for column in history.columns]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        (HEADER, "holds only a header"),
        (HEADER + "soon,1,2,0\n", 'line 2, column when: "soon" is not a time'),
        (HEADER + "2026-01-01,1,2,maybe\n", "line 2, column fault: 'maybe' is not a label"),
        (HEADER + 2 * ROW + "2026-01-01,1,x1,0\n", 'line 4, column b: "x1" is not a number'),
        (HEADER + 2 * ROW + "2026-01-01,1,1e39,0\n", "line 4, column b: the number is too large"),
        (HEADER + "2026-01-01,1,0\n", "line 2 has 3 cells, but there are 4 columns"),
        (HEADER + "2026-01-01,x,y,0\n", "no column to judge"),
        ("when,a,a,fault\n1,2,3,0\n", 'names "a" twice'),
        ("at,a,b,fault\n1,2,3,0\n", 'there is no column "when"'),
    ],
)
def test_an_unusable_file_names_the_place(tmp_path: Path, text: str, why: str):
    """The message about an unusable file names the place."""
    with pytest.raises(BadTable, match=why):
        read(written(tmp_path, text), Options("when"), "fault")


def test_npy_and_npz_files_are_read(tmp_path: Path):
    """A single matrix has numbered columns; an archive can have times and labels."""
    X = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.save(tmp_path / "x.npy", X)
    history = read(tmp_path / "x.npy", Options("1"))
    assert named(history) == ["2"]
    assert history.vectors[:].tolist() == [[1], [3], [5]]
    np.savez(tmp_path / "x.npz", X=X, at=np.array([3, 2, 1]), y=np.array([0, 0, 1]))
    history = read(tmp_path / "x.npz", Options("at"), "y")
    assert history.vectors[:].tolist() == [[4, 5], [2, 3], [0, 1]]
    assert history.anomalous is not None
    assert history.anomalous[:].tolist() == [True, False, False]


def test_tables_are_read_as_score_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Files of any dialect are read as `score` reads them, with words as codes."""
    text = "when;a;open;state\n" + "".join(
        f"2026-01-0{day};{day},5;{'yes' if day % 2 else 'no'};{word}\n"
        for day, word in ((1, "on"), (2, "idle"), (3, "on"), (4, "idle"))
    )
    history = read(written(tmp_path, text), Options("when"))
    assert history.columns == (Column("a"), Column("open", "flag"), Column("state", "category"))
    assert history.vectors[:][:, :2].tolist() == [[1.5, 1], [2.5, 0], [3.5, 1], [4.5, 0]]
    codes = history.vectors[:][:, 2].tolist()
    assert codes[:2] == codes[2:]
    assert codes[0] != codes[1]
    assert "semicolons" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(".csv", marks=pytest.mark.thorough),
        pytest.param(".parquet", marks=pytest.mark.thorough),
        ".npy",
    ],
)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str):
    """A file many times larger than the memory used is read whole, in order of time."""
    n = 120_000
    X = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    X[:, 0] = np.arange(n)
    file = tmp_path / f"large{kind}"
    if kind == ".npy":
        np.save(file, X)
    elif kind == ".csv":
        np.savetxt(file, X, "%.9g", ",", header=",".join("tabcdefg"), comments="")
    else:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.table(dict(zip("tabcdefg", X.T, strict=True))), file)
    tracemalloc.start()
    history = read(file, Options("1"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < {".npy": X.nbytes / 2, ".csv": 40e6, ".parquet": 40e6}[kind]
    assert history.times is not None
    assert (len(history.vectors), history.times[-1]) == (n, n - 1)
    np.testing.assert_array_equal(history.vectors[:], X[:, 1:])


def test_the_format_of_times_that_an_error_advises_is_read(tmp_path):
    """A history has times as the other commands read them."""
    file = written(tmp_path, "when,a\n02.03.2026 12:00,1\n01.03.2026 12:00,2\n")
    with pytest.raises(BadTable, match="--time-format"):
        read(file, Options("when"))
    history = read(file, Options("when", time_format="%d.%m.%Y %H:%M", timezone="Europe/Berlin"))
    assert history.vectors[:].tolist() == [[2], [1]]
    assert history.times is not None
    assert history.times[:].tolist() == [1772362800.0, 1772449200.0]


def test_the_column_of_sources_is_no_feature(tmp_path: Path):
    """A source that is a number is left out of a backtest, as `learn` leaves it out."""
    file = written(tmp_path, "when,a,b,fault\n1,2,3,0\n2,5,6,0\n")
    assert named(read(file, Options("when", "b"), "fault")) == ["a"]
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    assert named(read(tmp_path / "x.npy", Options(source="1"))) == ["2"]
