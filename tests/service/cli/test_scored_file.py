"""The file of scored rows: the user's columns in each file type, and continuation after a stop."""

import csv
import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.cli.score_result import ScoredRow
from service.cli.scored_file import ADDED, ScoredFile
from service.cli.sheet import Sheet
from service.cli.table_files import BadTable
from service.cli.text_table import Options
from service.domain.attribution import Attribution

BY = ["pump", "generation 1"]
COUNT = 10


def row(i: int, cells: tuple[str, ...]) -> ScoredRow:
    """Return the judged row i of a file with these cells; the last row is not judged."""
    numbers = (None,) * 4 if i == COUNT - 1 else (float(i), 10.0**-i, i / 2, i > 5)
    state = "scored" if numbers[0] is not None else "warming"
    return ScoredRow("line", i, 1, *numbers, state, None, None, (), cells)


def write_scored(table: Path, out: Path, rows: range, cut: int | None = None) -> int:
    """Write the scored rows of `table` up to row `cut`; return how many were there before."""
    with Sheet(table, Options()) as sheet, ScoredFile(out, sheet, BY) as file:
        written = file.done
        for i in rows:
            if i == cut:
                raise KeyboardInterrupt
            file.add(row(i, (str(i), f"{i / 4}")))
            if i % 3 == 2:
                file.keep()
        return written


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a CSV of ten rows."""
    lines = ["count,speed", *(f"{i},{i / 4}" for i in range(COUNT))]
    (tmp_path / "in.csv").write_text("\n".join(lines))
    return tmp_path / "in.csv"


@pytest.mark.parametrize("kind", [".csv", ".npy", ".parquet"])
def test_a_continued_command_writes_the_same_file(table: Path, kind: str) -> None:
    """A continued command writes the same file as one that was not stopped."""
    at_once, out = table.with_name(f"whole{kind}"), table.with_name(f"out{kind}")
    assert write_scored(table, at_once, range(COUNT)) == 0
    with pytest.raises(KeyboardInterrupt):
        write_scored(table, out, range(COUNT), cut=8)
    assert not out.exists()
    assert write_scored(table, out, range(6, COUNT)) == 6
    assert out.read_bytes() == at_once.read_bytes()
    assert {path.name for path in table.parent.iterdir()} == {table.name, at_once.name, out.name}


def test_a_file_of_another_version_is_written_again(table: Path) -> None:
    """Rows scored by another version, or of another file, are written again."""
    out = table.with_name("out.csv")
    with pytest.raises(KeyboardInterrupt):
        write_scored(table, out, range(COUNT), cut=8)
    with Sheet(table, Options()) as sheet, ScoredFile(out, sheet, ["pump", "generation 2"]) as file:
        assert file.done == 0
    with pytest.raises(KeyboardInterrupt):
        write_scored(table, out, range(COUNT), cut=8)
    table.write_text(table.read_text() + "\n10,2.5")
    assert write_scored(table, out, range(COUNT)) == 0


def test_each_kind_keeps_the_columns_of_the_user(table: Path) -> None:
    """Each file type keeps the user's columns, names and types; a missing score is null."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = {kind: table.with_name(f"out{kind}") for kind in (".csv", ".npy", ".parquet")}
    for path in out.values():
        write_scored(table, path, range(COUNT))
    header = out[".csv"].read_text().splitlines()[0]
    assert header == ",".join(["count", "speed", *(f"anamnesis_{name}" for name in ADDED)])
    numbers = np.load(out[".npy"])
    np.testing.assert_array_equal(numbers[7], [7, 1.75, 7.0, 1e-7, 3.5, 1.0])
    assert numbers.shape == (COUNT, 6)
    assert np.isnan(numbers[-1, 2:]).all()
    scored = parquet.read_table(out[".parquet"])
    assert scored.column_names == header.split(",")
    assert scored.column("anamnesis_score").to_pylist() == [*map(float, range(COUNT - 1)), None]
    typed = pa.table({"count": pa.array(range(COUNT), pa.int32()), "speed": np.arange(COUNT) / 4})
    parquet.write_table(typed, table.with_name("in.parquet"))
    write_scored(table.with_name("in.parquet"), out[".parquet"], range(COUNT))
    assert parquet.read_table(out[".parquet"]).select(["count", "speed"]).equals(typed)


def test_times_of_day_and_empty_columns_keep_their_types(table: Path) -> None:
    """A Parquet file may have columns of times of day, and columns without any value."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    times = [dt.time(12, 30, i, 5) if i % 2 else None for i in range(COUNT)]
    whole_seconds = [time and time.replace(microsecond=0) for time in times]
    typed = pa.table(
        {
            "at": pa.array(times, pa.time64("us")),
            "clock": pa.array(whole_seconds, pa.time32("ms")),
            "none": pa.nulls(COUNT),
            "speed": np.arange(COUNT) / 4,
        }
    )
    parquet.write_table(typed, table.with_name("in.parquet"))
    out = table.with_name("out.parquet")
    with Sheet(table.with_name("in.parquet"), Options()) as sheet:
        assert sheet.first is not None
        with ScoredFile(out, sheet, BY, []) as file:
            for i, cells in enumerate(sheet.first.rows):
                file.add(row(i, cells))
    assert parquet.read_table(out).select(typed.column_names).equals(typed)


def test_a_column_of_text_leaves_the_others_numbers(table: Path) -> None:
    """In Parquet only a column that holds text is text: words, digits that are words, 1.234,5.

    Spaces around a number do not make it text, and alone they are a blank cell.
    """
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = [
        (f"{i / 4}", f"00{i}", "ok", "" if i == 4 else f"1.00{i},5", "  " if i == 4 else f" {i}")
        for i in range(COUNT)
    ]
    lines = ["speed;code;state;amount;heat", *(";".join(values) for values in cells)]
    table.write_text("\n".join(lines))
    out = table.with_name("out.parquet")
    with Sheet(table, Options()) as sheet, ScoredFile(out, sheet, BY, ["code", "state"]) as file:
        for i, values in enumerate(cells):
            file.add(row(i, values))
    scored = parquet.read_table(out)
    assert scored.column("speed").to_pylist() == [i / 4 for i in range(COUNT)]
    assert scored.column("code").to_pylist() == [f"00{i}" for i in range(COUNT)]
    assert {scored.schema.field(name).type for name in ("state", "amount")} == {pa.string()}
    assert scored.column("amount").to_pylist()[4] is None
    assert scored.column("heat").to_pylist() == [0, 1, 2, 3, None, 5, 6, 7, 8, 9]


def test_numbers_without_a_header_stay_numbers(table: Path) -> None:
    """The columns of a CSV without a header are numbers in Parquet, named by their places."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table.write_text("\n".join(table.read_text().splitlines()[1:]))
    out = table.with_name("out.parquet")
    write_scored(table, out, range(COUNT))
    assert parquet.read_table(out).column("2").to_pylist() == [i / 4 for i in range(COUNT)]


@pytest.mark.parametrize(("kind", "expected"), [(".csv", "'=1+1 2"), (".parquet", "=1+1 2")])
def test_a_reason_is_no_formula_of_a_spreadsheet(table: Path, kind: str, expected: str) -> None:
    """A reason begins with a column's name; in a CSV it must not begin like a formula."""
    pa = pytest.importorskip("pyarrow.parquet")
    leading = (Attribution("=1+1", 9.0, 2.0, 0.0),)
    out = table.with_name(f"out{kind}")
    with Sheet(table, Options()) as sheet, ScoredFile(out, sheet, BY) as file:
        file.add(replace(row(7, ("7", "1.75")), leading=leading))
    if kind == ".parquet":
        (reason,) = pa.read_table(out).column("anamnesis_why").to_pylist()
    else:
        reason = list(csv.reader(out.read_text().splitlines()))[1][-1]
    assert reason.startswith(expected)


def test_an_npy_output_is_refused_for_text(tmp_path: Path) -> None:
    """For a file with text an .npy output is refused before anything is scored."""
    (tmp_path / "in.csv").write_text("speed,state\n1,idle\n2,idle\n")
    with Sheet(tmp_path / "in.csv", Options()) as sheet, pytest.raises(BadTable, match="state"):
        ScoredFile(tmp_path / "out.npy", sheet, BY)


@pytest.mark.parametrize(
    ("name", "why"), [("", "is a folder"), ("in.csv", "is the input"), ("out.XLSX", "cannot be")]
)
def test_an_impossible_output_is_refused_before_scoring(table: Path, name: str, why: str) -> None:
    """A folder, the input file or a workbook as output is refused, and nothing is written."""
    before = table.read_bytes()
    with Sheet(table, Options()) as sheet, pytest.raises(BadTable, match=why):
        ScoredFile(table.parent / name, sheet, BY)
    assert [path.name for path in table.parent.iterdir()] == [table.name]
    assert table.read_bytes() == before
