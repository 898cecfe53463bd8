"""What a newcomer is told whose file's rows are in an order in which most could not be learned."""

from pathlib import Path

import pytest

from service.cli.new_detector import config_for
from service.cli.sheet import Sheet
from service.cli.table_files import BadTable
from service.cli.text_table import Options

LINES = [
    f"2026-09-{1 + i // 48:02} {i % 48 // 2:02}:{i % 2 * 3}0,{i % 7},{i % 5}" for i in range(96)
]
GERMAN = "\n".join(
    [
        "Datum;Uhrzeit;Wert",
        *(f"{1 + i // 48:02}.09.2026;{i % 48 // 2:02}:{i % 2 * 3}0;{i % 7}" for i in range(96)),
    ]
)


def refused(tmp_path: Path, text: str, options: Options) -> str:
    """Return the error for a file with this text, before a detector is made."""
    (tmp_path / "x.csv").write_text(text)
    with Sheet(tmp_path / "x.csv", options) as sheet, pytest.raises(BadTable) as error:
        config_for(sheet, "UTC")
    return str(error.value)


def test_rows_of_several_machines_name_the_option(tmp_path: Path) -> None:
    """If machines share the times, the error names their column; without one, the option."""
    rows = [f"{line},{machine}" for line in LINES for machine in ("m1", "m2")]
    by_name = "\n".join(["when,a,b,machine", *rows])
    assert "96 of the first 192 rows have the time of an earlier row: give --source machine" in (
        refused(tmp_path, by_name, Options(time="when"))
    )
    values = [f"{line},{i}" for line in LINES for i in (1.5, 2.5)]
    assert "if several machines share the file, --source names their column" in refused(
        tmp_path, "\n".join(["when,a,b,c", *values]), Options(time="when")
    )


def test_repeated_rows_are_read(tmp_path: Path) -> None:
    """A file in which each row stands twice is read: the copies tell nothing new."""
    (tmp_path / "x.csv").write_text("\n".join(["when,a,b", *(x for x in LINES for _ in (1, 2))]))
    with Sheet(tmp_path / "x.csv", Options(time="when")) as sheet:
        config_for(sheet, "UTC")


def test_rows_in_no_order_are_refused(tmp_path: Path) -> None:
    """Rows that fall, and rows in no order, have different errors."""
    falling = refused(tmp_path, "\n".join(["when,a,b", *LINES[::-1]]), Options(time="when"))
    assert falling.endswith("the newest rows come first; sort the file by time")
    shuffled = [LINES[i * 37 % 96] for i in range(96)]
    mixed = refused(tmp_path, "\n".join(["when,a,b", *shuffled]), Options(time="when"))
    assert mixed.endswith("the rows are not in the order of time; sort the file by time")


def test_a_date_without_its_time_of_day_is_refused(tmp_path: Path) -> None:
    """The hint for a column of dates names the column of the time of day, too."""
    error = refused(tmp_path, GERMAN, Options(time="Datum", time_format="%d.%m.%Y"))
    assert "no time of day: give the column of the time of day, too, by --time DATE,CLOCK" in error
    with Sheet(tmp_path / "x.csv", Options()) as sheet:
        _, notes = config_for(sheet, "UTC")
    assert any("--time Datum,Uhrzeit --time-format '%d.%m.%Y %H:%M'" in note for note in notes)


def test_a_hint_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    """The name of a column with spaces is quoted."""
    (tmp_path / "x.csv").write_text("\n".join(["when (UTC),a,b", *LINES]))
    with Sheet(tmp_path / "x.csv", Options()) as sheet:
        _, notes = config_for(sheet, "UTC")
    assert any("; --time 'when (UTC)' makes use" in note for note in notes)


def test_a_file_without_a_header_makes_no_detector_if_it_cannot_be_learned(tmp_path: Path) -> None:
    """A column of times is named with the option, and text with its line."""
    error = refused(tmp_path, "\n".join(LINES), Options())
    assert error.endswith("column 1 holds times: give --time 1")
    assert 'line 2, column 2: "1O.5" is not a number' in refused(
        tmp_path, "1.5,2.5\n1.5,1O.5\n", Options()
    )
