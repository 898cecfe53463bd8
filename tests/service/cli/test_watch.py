"""A growing file: its rows as they come, and incidents as they open and close."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from models.parts.incident_rule import Rule
from service.cli.growing_file import GrowingFile
from service.cli.live import LiveIncidents
from service.cli.score_result import ScoredRow
from service.cli.sheet import Sheet
from service.cli.text_table import Options
from service.domain.attribution import Attribution

LEADING = (Attribution("speed", 8.0, 9.0, 3.0),)
OPTIONS = Options(time="when", source="machine")


def row(place: int, *, alarm: bool, source: str = "a") -> ScoredRow:
    """Return a judged row."""
    severity = 2.0 if alarm else 0.2
    return ScoredRow("line", place, 1, 9.0, 0.1, severity, alarm, None, None, source, LEADING, ())


def test_rows_are_read_as_the_file_grows(tmp_path):
    """A row comes as soon as its line is complete; rows from before are marked."""
    path = tmp_path / "x.csv"
    path.write_text("when,machine,speed\n1,a,0.5\n2,a,1.5\n")
    read = []
    with Sheet(path, OPTIONS, follow=True) as sheet:
        chunks = sheet.rows([("speed", "number")], gaps=False)
        read += [next(chunks), next(chunks)]
        assert [rows.places[0] <= sheet.lines_before for rows in read] == [True, True]
        with path.open("a") as file:
            file.write("3,b,2.5\n4,b,")
            file.flush()
            read.append(next(chunks))
            later = threading.Thread(target=lambda: (file.write("3.5\n"), file.flush()))
            later.start()
            read.append(next(chunks))
            later.join()
        assert read[2].places[0] > sheet.lines_before
    assert np.concatenate([rows.X for rows in read]).ravel().tolist() == [0.5, 1.5, 2.5, 3.5]
    assert [rows.sources for rows in read[2:]] == [("b",), ("b",)]


def opened_and_read(path: Path, text: str) -> GrowingFile:
    """Return the file at `path` with this `text`, read to its end."""
    path.write_text(text)
    growing = GrowingFile(path, look_seconds=0.0)
    assert growing.read(100) == text.encode()
    return growing


@pytest.mark.parametrize("header", ["speed\n", ""])
def test_reading_goes_on_in_a_file_that_takes_its_place(tmp_path, header):
    """A log that is rotated goes on in the new file; its header is not repeated."""
    path = tmp_path / "x.csv"
    growing = opened_and_read(path, "speed\n1\n2\n")
    with path.open("a") as file:
        file.write("3\n")
    path.rename(tmp_path / "x.csv.1")
    assert growing.read(100) == b"3\n"
    later = threading.Timer(0.0, lambda: path.write_text(f"{header}4\n5\n"))
    later.start()
    assert growing.read(100) == b"4\n5\n"
    later.join()
    growing.close()


def test_a_header_that_came_after_the_start_is_not_repeated(tmp_path):
    """A file that was empty at first gets its header later; the new file's header is not a row."""
    path = tmp_path / "x.csv"
    path.touch()
    growing = GrowingFile(path, look_seconds=0.0)
    path.write_text("speed\n1\n")
    assert growing.read(100) == b"speed\n1\n"
    path.rename(tmp_path / "x.csv.1")
    path.write_text("speed\n2\n")
    assert growing.read(100) == b"2\n"
    growing.close()


def test_a_last_line_that_is_not_ended_is_not_joined_with_the_next_file(tmp_path):
    """The old file may end within a line; what follows in the new file is a line of its own."""
    path = tmp_path / "x.csv"
    growing = opened_and_read(path, "speed\n1\n2")
    path.rename(tmp_path / "x.csv.1")
    path.write_text("speed\n3\n")
    assert [growing.read(100), growing.read(100)] == [b"\n", b"3\n"]
    growing.close()


def test_no_line_is_lost_while_a_file_is_replaced(tmp_path, monkeypatch):
    """A line that is written to the old file after its end was read comes before the new file."""
    path, old = tmp_path / "x.csv", tmp_path / "x.csv.1"
    growing = opened_and_read(path, "speed\n1\n")
    path.rename(old)
    path.write_text("speed\n3\n")
    same = os.path.samestat

    def late(one, other):
        if old.stat().st_size == 8:
            with old.open("a") as file:
                file.write("2\n")
        return same(one, other)

    monkeypatch.setattr(os.path, "samestat", late)
    assert growing.read(100) == b"2\n"
    assert growing.read(100) == b"3\n"
    growing.close()


@pytest.mark.parametrize("moved", [True, False])
def test_the_head_of_a_rotated_log_is_skipped(tmp_path, moved):
    """Title, header and units come again, whether the log is moved away or cut off in its place."""
    path = tmp_path / "x.csv"
    head = "Plant {},,\nwhen,machine,speed\n,,m/s\n"
    path.write_text(head.format(1) + "1,a,0.5\n2,a,1.5\n3,a,2.5\n4,a,2.5\n")
    with Sheet(path, OPTIONS, follow=True) as sheet:
        chunks = sheet.rows([("speed", "number")], gaps=False)
        before = [next(chunks) for _ in range(4)]
        if moved:
            path.rename(tmp_path / "x.csv.1")
        path.write_text(head.format(2) + "5,a,3.5\n")
        assert [rows.X.item() for rows in (*before, next(chunks))] == [0.5, 1.5, 2.5, 2.5, 3.5]


@pytest.mark.parametrize(
    "lines",
    [
        '{"when": 1, "machine": "a", "speed": 0.5}\n{"when": 2, "machine": "a", "speed": 1.5}\n',
        '{"record": {"when": 1, "speed": 0.5}, "source": "a"}\n\n'
        '{"record": {"when": 2, "speed": 1.5}, "source": "a"}\n',
    ],
)
def test_lines_of_json_are_rows(tmp_path, lines):
    """A line of JSON is a flat record, or has the form of the service."""
    path = tmp_path / "x.ndjson"
    path.write_text(lines)
    source = "source" if "source" in lines else "machine"
    with Sheet(path, Options(time="when", source=source), follow=True) as sheet:
        chunks = sheet.rows([("speed", "number")], gaps=False)
        first, second = next(chunks), next(chunks)
    assert (first.X.tolist(), second.X.tolist()) == ([[0.5]], [[1.5]])
    assert (first.times.tolist(), second.sources) == ([1.0], ("a",))


def test_an_incident_opens_and_closes_by_the_detectors_rule():
    """Each source has its own incidents; those still open at the end are printed."""
    live, lines = LiveIncidents(Rule(k=2, m=10, alone=4.0, seconds=0.0)), []
    for place in range(3):
        lines += live.add(row(place, alarm=True))
    lines += live.add(row(3, alarm=True, source="b"))
    assert lines == [
        "opened: incident of a, line 0 to 1: 2 rows, severity up to 2: speed 9, expected 3"
    ]
    lines = [line for place in range(10) for line in live.add(row(4 + place, alarm=False))]
    assert lines == [
        "closed: incident of a, line 0 to 2: 3 rows, severity up to 2: speed 9, expected 3"
    ]
    lines += live.add(row(14, alarm=True, source="b"))
    assert [line.split(":")[0] for line in live.end()] == [
        "still open",
        "5 of 15 rows were anomalies",
    ]


@pytest.mark.parametrize(
    "begun",
    ["when;speed\n", "Oven 2\nwhen;speed\n", "Oven 2\n", "when;sp", "when;speed\n1;18"],
)
def test_the_first_row_shows_how_a_new_log_is_written(tmp_path, begun):
    """A log may begin with only a header; its first row shows its decimal commas."""
    path = tmp_path / "x.csv"
    path.write_text(begun)
    title = "Oven 2\n" * begun.startswith("Oven")
    rest = f"{title}when;speed\n1;1843,6\n2;0,5\n".removeprefix(begun)

    def add() -> None:
        with path.open("a") as file:
            file.write(rest)

    later = threading.Timer(0.0, add)
    later.start()
    with Sheet(path, Options(time="when"), follow=True) as sheet:
        chunks = sheet.rows([("speed", "number")], gaps=False)
        read = [next(chunks), next(chunks)]
    later.join()
    assert np.concatenate([rows.X for rows in read]).ravel().tolist() == [np.float32(1843.6), 0.5]


def test_a_short_file_may_have_a_title(tmp_path):
    """One row below the header is enough to tell the header from the title."""
    path = tmp_path / "x.csv"
    path.write_text("Oven 2\nwhen;speed;heat\n1;1843,6;3\n")
    with Sheet(path, Options(time="when")) as sheet:
        assert sheet.names == ("speed", "heat")
