"""Sensors that repeat one reading are named, and columns that stand still now and then are not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.cli.sheet import Rows
from service.cli.still_cells import StillCells

COLUMNS = [("temp", "number"), ("door", "flag")]


def rows_of(X: NDArray, sources: str | None = None) -> Rows:
    """Return rows of a file `x.csv` from line 2 on; each letter of `sources` is a source."""
    named = None if sources is None else tuple(sources)
    cells = [[""] * X.shape[1]] * len(X)
    return Rows(X, None, named, "x.csv", "line", range(2, len(X) + 2), cells, ["temp", "door"])


def lively(n: int, longest: int = 3) -> NDArray[np.float32]:
    """Return a column whose readings repeat at most `longest` times, and a constant column."""
    temp = np.repeat(np.arange(n), 1 + np.arange(n) % longest)[:n] / 10
    return np.column_stack([temp, np.zeros(n)]).astype(np.float32)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_a_reading_that_does_not_change_any_more_is_named_once(at_once: int) -> None:
    """The message has the first line, the reading and the usual length, in one part or several."""
    X = lively(400)
    X[300:360, 0] = 20.5
    cells, rows = StillCells(COLUMNS), rows_of(X)
    notes = [note for part in rows.parts(at_once) for note in cells.new_stills(part)]
    assert notes == [
        "x.csv, line 302: from here on temp reads 20.5, 10 times so far; before, a reading came at "
        "most 3 times in succession: has the sensor failed?"
    ]


def test_each_source_stands_still_by_itself() -> None:
    """Two sources with one reading are not a repetition; a source that stands still is named."""
    X = np.repeat(lively(400), 2, axis=0)
    X[601::2, 0] = 7.0
    (note,) = StillCells(COLUMNS).new_stills(rows_of(X, "ab" * 400))
    assert note.startswith("x.csv, line 603: from here on temp of b reads 7, 10 times so far")


@pytest.mark.parametrize(
    "X",
    [
        pytest.param(lively(400, longest=5), id="a rounded reading"),
        pytest.param(lively(60), id="too few rows to know what is usual"),
        pytest.param(np.float32(np.arange(4000) // 40)[:, None] * [1, 0], id="a slow reading"),
        pytest.param(
            np.where(np.arange(400)[:, None] < 300, lively(400), np.nan), id="blank cells"
        ),
    ],
)
def test_what_is_usual_is_not_named(X: NDArray) -> None:
    """Rounded, slow and blank readings are not named."""
    assert list(StillCells(COLUMNS).new_stills(rows_of(X))) == []


def test_a_file_may_begin_with_a_machine_at_rest() -> None:
    """If a file begins with a long repetition, later ones of that length are usual, too."""
    X = lively(400)
    X[:60, 0] = X[300:360, 0] = 0.0
    assert list(StillCells(COLUMNS).new_stills(rows_of(X))) == []


def test_words_and_numbers_may_be_mixed() -> None:
    """Rows with a category are objects; only their numbers count."""
    X = lively(400).astype(object)
    X[:, 1] = "shut"
    X[300:, 0] = 20.5
    X[7, 0] = None
    (note,) = StillCells([("temp", "number"), ("door", "category")]).new_stills(rows_of(X))
    assert "temp reads 20.5" in note


def test_a_machine_that_rests_is_named_once() -> None:
    """One sentence names the columns of a source that stand still; later ones are not named."""
    X = np.column_stack([lively(400)[:, :1], lively(400)[:, :1] + 1, lively(400, longest=4)[:, :1]])
    X[300:360] = 0.0
    three = [("speed", "number"), ("rpm", "number"), ("riders", "number")]
    cells = [[""] * 3] * 400
    rows = Rows(X, None, None, "x.csv", "line", range(2, 402), cells, ["speed", "rpm", "riders"])
    assert list(StillCells(three).new_stills(rows)) == [
        "x.csv, line 302: from here on speed and rpm stand still, 10 times so far; before, a "
        "reading came at most 3 times in succession: does the machine rest, or does its "
        "logger hang?"
    ]


def test_sources_that_rest_at_one_reading_are_named_once() -> None:
    """A column with one constant reading in all sources is named once, not for each source."""
    X = np.repeat(lively(400), 3, axis=0)
    X[900:1080, 0] = 0.0
    (note,) = StillCells(COLUMNS).new_stills(rows_of(X, "abc" * 400))
    assert "temp of a reads 0" in note
    X[901:1080:3, 0] = 5.0
    assert len(list(StillCells(COLUMNS).new_stills(rows_of(X, "abc" * 400)))) == 2
