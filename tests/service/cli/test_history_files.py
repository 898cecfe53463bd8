from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from service.cli.history_files import read
from service.cli.table_files import BadTable

HEADER = "when,a,b,fault\n"


def written(path: Path, text: str) -> Path:
    """Write a CSV file and return where it is."""
    file = path / "history.csv"
    file.write_text(text)
    return file


def test_times_and_labels_are_taken_out(tmp_path: Path):
    """Columns are found by name or number; what is left are features, in the order of time."""
    text = HEADER + "2026-01-02T00:00:00Z,1,2,0\n2026-01-01,3,4,anomaly\n1767398400,5,6,0\n"
    file = written(tmp_path, text)
    for time, label in (("when", "fault"), ("1", "4")):
        found = read(file, time, label)
        assert found.features == ("a", "b")
        assert found.vectors.tolist() == [[3, 4], [1, 2], [5, 6]]
        assert found.anomalous is not None
        assert found.anomalous.tolist() == [True, False, False]
        assert found.times is not None
        assert found.times[0] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        (HEADER, "header and nothing else"),
        (HEADER + "soon,1,2,0\n", "line 2, column when: 'soon' is no time"),
        (HEADER + "2026-01-01,1,2,maybe\n", "line 2, column fault: 'maybe' is no label"),
        (HEADER + "2026-01-01,1,x,0\n", "line 2, column b: not a finite number"),
        (HEADER + "2026-01-01,1,,0\n", "line 2, column b: not a finite number"),
        (HEADER + "2026-01-01,1,0\n", "line 2: 3 fields"),
        ("when,a,a,fault\n1,2,3,0\n", "same name"),
        ("at,a,b,fault\n1,2,3,0\n", "there is no column when"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, why: str):
    """A file that cannot be used is refused with the place."""
    with pytest.raises(BadTable, match=why):
        read(written(tmp_path, text), "when", "fault")


def test_arrays_are_read(tmp_path: Path):
    """A matrix alone has numbered columns; an archive has times and labels beside it."""
    X = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.save(tmp_path / "x.npy", X)
    found = read(tmp_path / "x.npy", time="1")
    assert found.features == ("2",)
    assert found.vectors.tolist() == [[1], [3], [5]]
    np.savez(tmp_path / "x.npz", X=X, at=np.array([3, 2, 1]), y=np.array([0, 0, 1]))
    found = read(tmp_path / "x.npz", "at", "y")
    assert found.vectors.tolist() == [[4, 5], [2, 3], [0, 1]]
    assert found.anomalous is not None
    assert found.anomalous.tolist() == [True, False, False]
