"""Files as people have them: each is read correctly, or refused with the place."""

import gzip
import io
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from service.cli.blank_cells import BlankCells
from service.cli.column_guess import guess
from service.cli.new_detector import config_for, sources_note
from service.cli.sheet import Sheet
from service.cli.table_files import BadTable
from service.cli.text_table import Options

HEADER = "when,machine,speed,temp,status"
LINES = [
    "2026-01-01T00:00:00Z,a,1.5,20.25,run",
    "2026-01-01T00:01:00Z,a,1.75,20.5,idle",
    "2026-01-01T00:02:00Z,b,2.25,-20.75,run",
]
PLAIN = "\n".join([HEADER, *LINES, ""])
X = np.float32([[1.5, 20.25], [1.75, 20.5], [2.25, -20.75]])
TIMES = [1767225600.0, 1767225660.0, 1767225720.0]
OPTIONS = Options(time="when", source="machine", drop=("status",))
GERMAN = PLAIN.replace(",", ";").replace(".", ",")


def written(tmp_path, text):
    """Write a CSV file of this text; return its path."""
    path = tmp_path / "x.csv"
    path.write_text(text)
    return path


def opened(tmp_path, content, options=OPTIONS, name="x.csv"):
    """Return all rows of the file, and the sheet."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with Sheet(path, options) as sheet:
        rows = list(sheet.rows(None, gaps=False))
    return rows, sheet


def with_numbers_for_times(units):
    """Return the plain file with its times as numbers since 1970, of so many units a second."""
    text = PLAIN
    for line, at in zip(LINES, TIMES, strict=True):
        text = text.replace(line.split(",")[0], str(int(at) * units))
    return text


JSON_LINES = """\
{"machine": "a", "when": "2026-01-01T00:00:00Z", "speed": 1.5, "temp": 20.25, "status": "run"}
{"temp": 20.5, "status": null, "when": "2026-01-01T00:01:00Z", "machine": "a", "speed": "1.75"}

{"record": {"when": 1767225720, "speed": 2.25, "temp": -20.75, "machine": "b", "status": "run"}}
"""

READ_RIGHT = {
    "plain": PLAIN,
    "BOM": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 without BOM": PLAIN.encode("utf-16-le"),
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "no last newline": PLAIN.rstrip("\n"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "decimal commas": GERMAN,
    "decimal commas with tabs": GERMAN.replace(";", "\t"),
    "gzip": gzip.compress(PLAIN.encode()),
    "quoted numbers": PLAIN.replace("1.5", '"1.5"').replace("20.25", '"20.25"'),
    "quoted header": PLAIN.replace("speed", '"speed"'),
    "spaces around cells": PLAIN.replace(",", " , "),
    "a comma in a text": PLAIN.replace("idle", '"idle, or so"'),
    "a delimiter after the last cell": PLAIN.replace("\n", ",\n"),
    "a delimiter after the last cell of rows": PLAIN.replace("run\n", "run,\n"),
    "an index without a name": "\n".join(
        f"{'' if i == 0 else i},{line}" for i, line in enumerate([HEADER, *LINES])
    ),
    "seconds since 1970": with_numbers_for_times(1),
    "milliseconds since 1970": with_numbers_for_times(10**3),
    "sep= of Excel": "sep=;\r\n" + GERMAN.replace("\n", "\r\n"),
    "sep= before commas": "sep=,\n" + PLAIN,
    "a title and a blank line": "Pump 7, hall 2\n\n" + PLAIN,
    "comments": "# exported\n# by: a, b, c, d, e\n" + PLAIN,
    "a header as comment": "# exported\n#" + PLAIN,
    "a newline inside a cell": PLAIN.replace("idle", '"idle\nor so"'),
    "UTF-32": PLAIN.encode("utf-32"),
    "per cent": PLAIN.replace("20.25", "20.25%").replace("20.5", "20.5 %"),
    "units": PLAIN.replace("5,run", "5 °C,run").replace("5,idle", "5 °C,idle"),
    "a unit without a space": PLAIN.replace("5,20", "5m/s2,20").replace("5,-20", "5m/s2,-20"),
    "money": PLAIN.replace("1.5", "$1.5").replace("1.75", "$ 1.75").replace("2.25", "$2.25"),
    "units after decimal commas": GERMAN.replace("5;run", "5 K;run").replace("5;idle", "5 K;idle"),
    "points between thousands": GERMAN.replace("1,5;", "0.001,5;"),
    "an exponent with a comma": GERMAN.replace("1,5;", "0,15E+1;"),
    "times without a zone": PLAIN.replace("00Z", "00"),
    "a row of units": PLAIN.replace("\n", "\n,,rpm,C,\n", 1),
    "a row of units, a row of ranges": GERMAN.replace("\n", "\nJJJJ;;1/min;C;\n;;0..9;-;\n", 1),
    "a last line of sums": PLAIN + "Total,,4,5,\nMean,,1,2,\n",
    "below and above a limit": PLAIN.replace(",1.5,", ",<1.5,").replace("20.5", "> 20.5"),
    "lines of JSON": JSON_LINES,
    "lines of JSON with gzip": gzip.compress(JSON_LINES.encode()),
    "microseconds since 1970": with_numbers_for_times(10**6),
    "nanoseconds since 1970": with_numbers_for_times(10**9),
    "times as digits": PLAIN.replace("2026-01-01T00:0", "20260101000").replace(":00Z", ""),
    "times with a name of the zone": PLAIN.replace("T", " ").replace("Z", " UTC"),
    "an exponent of Fortran": PLAIN.replace("1.5", "0.15D+01").replace("20.5", "2050d-2"),
    "a negative number in brackets": PLAIN.replace("-20.75", "(20.75)"),
    "a sign after the number": PLAIN.replace("-20.75", "20.75-"),
    "comments between rows": PLAIN.replace("\n", "\n# pause, then, on\n"),
    "joined files": PLAIN.replace(LINES[1], f"{LINES[1]}\n{HEADER}"),
    "a header with a newline": PLAIN.replace("temp,status", 'temp,"status\nword"', 1),
    "a title filled up with delimiters": "Pump 7,,,,\nExported:,2026,,,\n,,,,\n" + PLAIN,
    "a note filled up with delimiters": PLAIN + ",,,,\nRows: 3,,,,\n",
    "times of another zone": PLAIN.replace("T00:0", "T01:0").replace("00Z", "00+01:00"),
}


@pytest.mark.parametrize("variant", READ_RIGHT)
def test_a_variant_of_the_file_holds_the_same_rows(tmp_path, variant):
    """Each variant of the file gives the same numbers, times and sources."""
    drop = ("status word",) if variant == "a header with a newline" else ("status",)
    rows, sheet = opened(tmp_path, READ_RIGHT[variant], replace(OPTIONS, drop=drop))
    assert sheet.names == ("speed", "temp")
    assert np.array_equal(np.concatenate([row.X for row in rows]), X)
    assert rows[0].times.tolist() == TIMES
    assert rows[0].sources == ("a", "a", "b")


REFUSED = {
    "a blank cell": (PLAIN.replace("20.5", ""), "line 3, column temp is blank"),
    "a cell that is no number": (PLAIN.replace("20.5", "hot"), 'column temp: "hot" is not a num'),
    "an infinite number": (PLAIN.replace("20.5", "inf"), 'column temp: "inf" is not a finite'),
    "beyond float32": (PLAIN.replace("20.5", "1e39"), "column temp: the number is too large"),
    "groups of two digits": (PLAIN.replace("20.5", '"10,20.5"'), 'column temp: "10,20.5" is not'),
    "an id with an underscore": (PLAIN.replace("20.5", "20_5"), '"20_5" is not a number'),
    "a NUL byte": (PLAIN.replace("20.5", "20.5\0"), "line 3 has a NUL byte"),
    "a line of sums between rows": (
        PLAIN + "Total,,4,5,\n" + LINES[0], "line 5, column when: .*delete the line"
    ),
    "a cut-off last line": (PLAIN + "2026\n", "line 5 has 1 cells, but there are 5 columns"),
    "one unit of three": (PLAIN.replace("20.5", "20.5 K"), 'column temp: "20.5 K" is not a num'),
    "a web page": ("<!DOCTYPE html>\n<p>Log in", "a web page, perhaps a login"),
    "JSON": ('[{"speed": 1}]', "is JSON: export the table"),
    "JSON on several lines": ('{\n"speed": 1\n}', "as JSON with one object in each line"),
    "a line that is no JSON": (JSON_LINES + "{", "line 5: not JSON"),
    "bzip2": (b"BZh91AY&SY", "compressed by bzip2: decompress it"),
    "spaces between cells": (PLAIN.replace(",", " "), "cells are split by commas, semicolons"),
    "a date with its month first": (
        PLAIN.replace("2026-01-01T00:0", "01/31/2026 00:0").replace(":00Z", ""),
        "--time-format, '%m/%d/%Y %H:%M'",
    ),
    "a short line": (PLAIN.replace("20.5,", ""), "line 3 has 4 cells, but there are 5"),
    "a long line": (PLAIN.replace("20.5", "20.5,7"), "line 3 has 6 cells, but there are 5"),
    "a name twice": (PLAIN.replace("temp", "speed"), '"speed" twice: rename one'),
    "no such time column": (PLAIN.replace("when", "at"), 'no column "when" (--time)'),
    "a header only": (HEADER + "\n", "holds only a header"),
    "nothing": ("", "is empty"),
    "blank lines only": ("\n\n\n", "is empty"),
    "a date of another order": (
        PLAIN.replace("2026-01-01T00:01:00Z", "13.01.2026"), "column when: .*--time-format"
    ),
    "a blank time": (PLAIN.replace("2026-01-01T00:01:00Z", ""), 'column when: "" is blank'),
    "a blank source": (PLAIN.replace("Z,b,", "Z,,"), "line 4, column machine: a source must"),
    "an Excel workbook": (b"PK\x03\x04" + bytes(99), "an Excel workbook.*export the sheet as CSV"),
    "an old Excel workbook": (b"\xd0\xcf\x11\xe0" + bytes(99), "export the sheet as CSV"),
    "a damaged gzip": (gzip.compress(PLAIN.encode() * 99)[:60], "the gzip file is damaged"),
    "too many columns": (
        ",".join(f"c{i}" for i in range(100_000)) + "\n" + ",".join("1" * 100_000) + "\n",
        "100000 columns, but a detector takes at most 65536",
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", REFUSED)
def test_an_unreadable_file_is_refused_with_line_and_column(tmp_path, variant):
    """The message about an unreadable file names line and column, and says what to do."""
    content, refusal = REFUSED[variant]
    options = Options() if variant == "too many columns" else OPTIONS
    with pytest.raises(BadTable, match=refusal.replace("(", r"\(").replace(")", r"\)")) as refused:
        opened(tmp_path, content, options)
    assert "\n" not in str(refused.value)


def test_cp1252_is_recognised_late_in_a_file(tmp_path):
    """A letter of cp1252 is read even if it comes long after the first bytes."""
    lines = [f"2026-01-02T{i // 60:02}:{i % 60:02}:00Z,a,1,2,run\n" for i in range(1000)]
    text = PLAIN + "".join(lines) + "2026-01-03T00:00:00Z,größe,1,2,run\n"
    rows, sheet = opened(tmp_path, text.encode("cp1252"))
    assert rows[0].sources[-1] == "größe"
    assert sheet.names == ("speed", "temp")


def test_the_detected_dialect_is_printed(tmp_path):
    """The detected dialect is printed, so that a person sees a wrong guess."""
    _, sheet = opened(tmp_path, gzip.compress(b"\xef\xbb\xbf" + GERMAN.encode()))
    assert sheet.notes == ("gzip", "UTF-8 with BOM", "semicolons", "decimal commas")
    assert opened(tmp_path, PLAIN)[1].notes == ()


def test_dates_are_read_with_time_format_and_timezone(tmp_path):
    """A date in another order is read with --time-format and --timezone."""
    content = "when,x\n01.02.2026 01:30,1\n01.02.2026 02:30,2\n"
    options = Options(time="when", time_format="%d.%m.%Y %H:%M", timezone="Europe/Berlin")
    (rows,), _ = opened(tmp_path, content, options)
    assert rows.times.tolist() == [1769905800.0, 1769909400.0]


def test_an_unknown_zone_is_refused(tmp_path):
    """The message about an unknown zone shows a valid one."""
    with pytest.raises(BadTable, match="Europe/Berlin"):
        opened(tmp_path, PLAIN, Options(timezone="CEST/Summer"))


def test_a_file_without_a_header_is_read_by_position(tmp_path):
    """The columns of a file without a header are named by their numbers, from 1."""
    content = "\n".join(line.replace("Z,a", "Z,1").replace("Z,b", "Z,2") for line in LINES)
    options = Options(time="1", source="2", drop=("5",))
    (rows,), sheet = opened(tmp_path, content, options)
    assert sheet.names is None
    assert np.array_equal(rows.X, X)
    assert rows.where(1).endswith("line 2")


def test_columns_are_matched_by_name_whatever_their_order(tmp_path):
    """Columns in another order than the detector's are matched by name."""
    swapped = "temp,speed\n20.25,1.5\n"
    config = {"columns": [{"name": "speed", "type": "number"}, {"name": "temp", "type": "number"}]}
    with Sheet(written(tmp_path, swapped), Options()) as sheet:
        (rows,) = sheet.rows(sheet.matched(config), gaps=False)
    assert rows.X.tolist() == [[1.5, 20.25]]


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ("speed,heat", '"temp" missing.*the file also has "heat"'),
        ("speed,temp,more", '"more" unknown.*--drop'),
    ],
)
def test_columns_that_do_not_match_are_named(tmp_path, header, refusal):
    """A renamed column is named, and so is a superfluous one."""
    path = written(tmp_path, f"{header}\n{','.join('1' * len(header.split(',')))}\n")
    with Sheet(path, Options()) as sheet, pytest.raises(BadTable, match=refusal):
        sheet.matched({"features": ["speed", "temp"]})


def test_a_blank_cell_is_a_missing_value(tmp_path):
    """A blank cell is NaN in the matrix, in all its spellings."""
    with Sheet(written(tmp_path, "a,b\n1,\n2,NA\n,3\nnull,4\n"), Options()) as sheet:
        (rows,) = sheet.rows(None, gaps=True)
    assert np.isnan(rows.X).tolist() == [[False, True], [False, True], [True, False], [True, False]]


def test_parquet_is_read_by_name_too(tmp_path):
    """Parquet is read with its times, numbers and missing values."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "when": pa.array([int(t * 1e6) for t in TIMES], pa.timestamp("us", "UTC")),
        "machine": ["a", "a", "b"],
        "speed": X[:, 0],
        "temp": X[:, 1].astype(float),
        "status": ["run"] * 3,
    }
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with Sheet(tmp_path / "x.parquet", OPTIONS) as sheet:
        (rows,) = sheet.rows(None, gaps=False)
    assert np.array_equal(rows.X, X)
    assert rows.times.tolist() == TIMES


def test_a_large_file_comes_in_parts_with_its_progress(tmp_path):
    """A large file comes in parts, with the share of the rows that came so far."""
    path = written(tmp_path, "a,b\n" + "1.000000,2.000000\n" * 60_000)
    shares, count = [], 0
    with Sheet(path, Options()) as sheet:
        for rows in sheet.rows(None, gaps=False):
            shares.append(sheet.share())
            count += len(rows.X)
    assert count == 60_000
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(5000 / 60_000, rel=0.1)
    assert shares[-1] == 1.0


def test_a_part_of_a_batch_keeps_the_places_of_its_rows(tmp_path):
    """A part of a batch knows the places of its rows."""
    (rows,), _ = opened(tmp_path, PLAIN)
    parts = list(rows.parts(2))
    assert [len(part.X) for part in parts] == [2, 1]
    assert np.array_equal(np.concatenate([part.X for part in parts]), X)
    assert parts[1].where(0).endswith("line 4")
    assert (parts[1].sources, parts[1].times.tolist()) == (("b",), TIMES[2:])


def test_standard_input_is_read_as_a_file_is(monkeypatch):
    """`-` reads CSV from standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"a\n1\n"))))
    with Sheet(Path("-"), Options()) as sheet:
        (rows,) = sheet.rows(None, gaps=False)
    assert rows.X.tolist() == [[1.0]]


def test_types_are_guessed_and_every_column_left_out_is_named(tmp_path):
    """Numbers, flags, text, times, constants and blanks are recognised; others are named."""
    lines = ["n,flag,text,at,constant,blank,long,delay,mixed,code"]
    lines += [
        f"{i / 7},{'yes' if i % 2 else 'no'},word {i},2026-01-01T00:{i:02}:00Z,5,,{7267225600 + i},"
        f"{i / 9} ms,{i}{'s' if i % 2 else 'ms'},0x{i:04x}"
        for i in range(40)
    ]
    with Sheet(written(tmp_path, "\n".join(lines)), Options()) as sheet:
        guessed = guess(sheet.first, sheet.names)
        config, notes = config_for(sheet, "UTC")
    assert guessed.columns == (
        ("n", "number"), ("flag", "flag"), ("constant", "number"), ("long", "number"),
        ("delay", "number"),
    )  # fmt: skip
    assert guessed.dropped == ("text", "at", "blank", "mixed", "code")
    names = [column["name"] for column in config["columns"]]
    assert names == ["n", "flag", "constant", "long", "delay"]
    all_notes = "\n".join(notes)
    for name, words in (
        ("text", "text"), ("at", "--time at"), ("blank", "blank"), ("constant", "constant so far"),
        ("long", "float32 cannot tell apart"), ("delay", 'numbers in "ms"'),
        ("mixed", "different units"), ("code", "text"),
    ):  # fmt: skip
        assert any(f'"{name}"' in note and words in note for note in notes), (name, all_notes)


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        (["2026-01-01"] * 40, "--time at makes"),
        ([f"{1 + i % 2:02}.01.2026 10:00" for i in range(40)], "--time-format '%d.%m.%Y %H:%M'"),
        ([f"Jan {1 + i // 20}, 2026" for i in range(40)], "--time-format '%b %d, %Y'"),
        ([f"202601{1 + i // 20:02}" for i in range(40)], "--time at makes"),
        ([f"{1767225600000 + i * i % 7 * 900000}" for i in range(40)], "--time at makes"),
        ([f"{1767225600 + i * i % 7}" for i in range(40)], "--time at makes"),
    ],
)
def test_a_second_column_of_times_is_left_out(tmp_path, cells, options):
    """Dates in a column that is not `--time` are left out, because those of tomorrow are new."""
    lines = [f"{i % 7},{cell if ',' not in cell else chr(34) + cell + chr(34)}"
             for i, cell in enumerate(cells)]  # fmt: skip
    with Sheet(written(tmp_path, "\n".join(["n,at", *lines])), Options()) as sheet:
        guessed = guess(sheet.first, sheet.names)
    assert guessed.dropped == ("at",)
    assert any("holds times: dropped" in note and options in note for note in guessed.notes)


def test_bytes_are_no_times_of_other_years(tmp_path):
    """Bytes may have the size of times; the rows' own times tell them apart."""
    noise = np.random.default_rng(0).normal(size=(400, 2))
    sizes = (np.array([1.3e12, 1.6e9]) + noise * [1e9, 1e5]).astype(np.int64).tolist()
    lines = [f"{1790000000 + 60 * i},{disk},{memory}" for i, (disk, memory) in enumerate(sizes)]
    path = written(tmp_path, "\n".join(["at,disk,memory", *lines]))
    with Sheet(path, Options("at")) as sheet:
        assert sheet.columns() == [("disk", "number"), ("memory", "number")]


@pytest.mark.parametrize("cell", ["10.4.12", "4006381333931", "20101305", "1500000000.5", "12.5"])
def test_numbers_and_releases_are_no_times(tmp_path, cell):
    """Codes of goods, releases and large numbers are learned although some could be times."""
    path = written(tmp_path, "\n".join(["n,code", *(f"{i % 7},{cell}" for i in range(40))]))
    with Sheet(path, Options()) as sheet:
        assert guess(sheet.first, sheet.names).dropped == ()


@pytest.mark.parametrize(
    ("words", "note_text"),
    [("aabbcc", "has each word in one stretch"), ("aaaaaa", "is the same word"), ("abcabc", "")],
)
def test_columns_with_ever_new_words_are_named(tmp_path, words, note_text):
    """A word column that always gets new words is named, because the next word would alarm."""
    cells = [f"{i},{source},{word}" for i, word in enumerate(words) for source in "xy"]
    path = written(tmp_path, "\n".join(["n,machine,release", *cells]))
    with Sheet(path, Options(source="machine")) as sheet:
        guessed = guess(sheet.first, [name for name in sheet.names if name != "machine"])
    assert ("release", "category") in guessed.columns
    notes = [note for note in guessed.notes if '"release"' in note]
    assert len(notes) == bool(note_text)
    assert all(note_text in note and "--drop release" in note for note in notes)


def test_a_word_that_identifies_a_source_gets_no_warning(tmp_path):
    """A word that only identifies a source gets no warning."""
    cells = [f"{i},{source},site {source}" for i in range(6) for source in "xy"]
    path = written(tmp_path, "\n".join(["n,machine,site", *cells]))
    with Sheet(path, Options(source="machine")) as sheet:
        guessed = guess(sheet.first, ["n", "site"])
    assert ("site", "category") in guessed.columns
    assert not any("site" in note for note in guessed.notes)


@pytest.mark.parametrize("cell", ["{:.1f}", "{:.1f} %", "-{:.1f}"])
def test_a_counter_is_left_out_and_named(tmp_path, cell):
    """A column that only rises is left out, because its next values lie beyond the learned ones."""
    rng = np.random.default_rng(0)
    lines = [
        f"{rng.normal()},{source},{'' if i == 9 else cell.format(start + i // 2)},{i % 7}"
        for i in range(60)
        for source, start in (("x", 100), ("y", 9000))
    ]
    path = written(tmp_path, "\n".join(["n,machine,meter,phase", *lines]))
    with Sheet(path, Options(source="machine")) as sheet:
        guessed = guess(sheet.first, ["n", "meter", "phase"])
    assert guessed.columns == (("n", "number"), ("phase", "number"))
    assert guessed.dropped == ("meter",)
    assert any('"meter"' in note and "counter" in note for note in guessed.notes)


def test_a_counter_that_starts_again_is_kept_and_named(tmp_path):
    """A counter that was reset once is learned with a warning; one with many resets has none."""
    lines = [f"{i % 7},{i % 90},{i % 6}" for i in range(150)]
    with Sheet(written(tmp_path, "\n".join(["n,parts,saw", *lines])), Options()) as sheet:
        guessed = guess(sheet.first, sheet.names)
    assert len(guessed.columns) == 3
    assert ["--drop parts" in note for note in guessed.notes] == [True]


def test_remarks_are_left_out_and_named(tmp_path):
    """A column of text that is nearly always blank says nothing of the other rows."""
    cells = [
        f"{i % 7},{'on' if i % 3 else 'idle'},{'checked' if i in (5, 60) else ''}"
        for i in range(99)
    ]
    with Sheet(written(tmp_path, "\n".join(["n,state,remark", *cells])), Options()) as sheet:
        guessed = guess(sheet.first, sheet.names)
    assert guessed.columns == (("n", "number"), ("state", "category"))
    assert guessed.dropped == ("remark",)
    assert any('"remark"' in note and "98.0%" in note for note in guessed.notes)


def test_a_counter_is_left_out_of_a_short_file_too(tmp_path):
    """A column that `learn` left out of a long file is left out of a short one, too."""
    path = written(tmp_path, "\n".join(["n,meter", *(f"{i % 5},{100 + i}" for i in range(12))]))
    with Sheet(path, Options()) as sheet:
        assert sheet.matched({"columns": [{"name": "n"}]}) == [("n", "number")]
        with pytest.raises(BadTable, match='"n" unknown'):
            sheet.matched({"columns": [{"name": "meter"}]})


def test_sources_of_different_levels_are_named(tmp_path):
    """For a common detector, the usual level of one source is normal for all of them."""
    rng = np.random.default_rng(0)
    path = tmp_path / "x.csv"
    for apart in (0.0, 3.0):
        lines = [
            f"{source},{rng.normal()},{rng.normal() + apart * (source == 'y') if i else ''}"
            for i in range(120)
            for source in "xy"
        ]
        path.write_text("\n".join(["machine,n,load", *lines]))
        with Sheet(path, Options(source="machine")) as sheet:
            note = sources_note(sheet, "machine")
        assert (note is not None) == bool(apart)
    assert '"load"' in note
    assert "--group-by" in note


def test_a_context_is_chosen_with_its_reason(tmp_path):
    """A slow series gets a context and noise none, with the reason; blanks are imputed."""
    rng = np.random.default_rng(0)
    slow = np.cumsum(rng.normal(size=400))
    for values, context in ((slow, {"over": 10}), (rng.normal(size=400), None)):
        lines = [f"{1.7e9 + 60 * i},{value if i != 7 else ''}" for i, value in enumerate(values)]
        path = tmp_path / "x.csv"
        path.write_text("when,x\n" + "\n".join(lines))
        with Sheet(path, Options(time="when")) as sheet:
            config, notes = config_for(sheet, "UTC")
        assert config["missing"] == "impute"
        assert (config["context"] or {}).get("over") == (context or {}).get("over")
        assert any("correlate by" in note for note in notes)


def test_a_new_detector_accepts_blank_cells(tmp_path):
    """A sensor that fails later must not stop the scoring, so gaps are accepted from the start."""
    with Sheet(written(tmp_path, "a,b\n1,2\n3,5\n"), Options()) as sheet:
        config, notes = config_for(sheet, "UTC")
    assert config["missing"] == "impute"
    assert not any("blank" in note for note in notes)


@pytest.mark.parametrize(("each", "learned"), [(5, True), (6, False)])
def test_a_column_that_is_mostly_blank_is_left_out(tmp_path, each, learned):
    """Of a column of numbers at least a fifth must be there; a detector cannot fill in the rest."""
    lines = [f"{i % 7},{i % 9 if i % each == 0 else ''}" for i in range(120)]
    with Sheet(written(tmp_path, "\n".join(["a,b", *lines])), Options()) as sheet:
        guessed = sheet.guessed
    assert ("b" in dict(guessed.columns)) == learned
    assert any("83.3%" in note for note in guessed.notes) != learned


def test_a_row_without_any_value_is_left_out_and_named(tmp_path, capsys):
    """A logger that lost its sensors for some rows stops neither `score` nor `watch`."""
    path = written(
        tmp_path, "when,a,b\n1700000000,1,2\n1700000060,,\n1700000120,,\n1700000180,3,\n"
    )
    with Sheet(path, Options(time="when")) as sheet:
        (rows,) = sheet.rows([("a", "number"), ("b", "number")], gaps=True)
    assert rows.places == [2, 5]
    assert capsys.readouterr().err.count("line 3: every value is blank") == 1


def test_columns_that_become_blank_are_named(tmp_path):
    """A column of a source that was filled ten times and is now blank is reported, and counted."""
    lines = [
        f"{s},{i},{'' if s == 'y' and i in {4, 15, 16, 18} else i}" for i in range(20) for s in "xy"
    ]
    cells = BlankCells()
    path = written(tmp_path, "\n".join(["machine,a,b", *lines]))
    with Sheet(path, Options(source="machine")) as sheet:
        for rows in sheet.rows([("a", "number"), ("b", "number")], gaps=True):
            cells.count(rows)
            begun = list(cells.new_blanks(rows))
    assert begun == [f"{path}, line 33: b of y is blank; the other columns are judged"]
    assert list(cells.summary()) == ["b is blank in 4 rows; the other columns are judged"]


def test_cells_that_are_often_blank_are_named_only_at_first(tmp_path):
    """The first two blank cells of a column are named, and later a longer blank stretch."""
    blank = {20, 40, 60, 80, 81, *range(100, 130), 140}
    path = written(
        tmp_path, "a,b\n" + "\n".join(f"{i},{'' if i in blank else i}" for i in range(150))
    )
    cells = BlankCells()
    with Sheet(path, Options()) as sheet:
        begun = [
            note
            for rows in sheet.rows([("a", "number"), ("b", "number")], gaps=True)
            for part in rows.parts(7)
            for note in cells.new_blanks(part)
        ]
    assert begun == [
        f"{path}, line 22: b is blank; the other columns are judged",
        f"{path}, line 42: b is blank; the other columns are judged",
        f"{path}, line 108: b is blank for 7 rows; the other columns are judged",
    ]


def test_a_file_with_the_newest_row_first_is_refused(tmp_path):
    """A file with the newest row first is refused, because all rows would be late."""
    path = written(tmp_path, "when,x\n" + "\n".join(f"{1.7e9 - 60 * i},{i}" for i in range(40)))
    with Sheet(path, Options(time="when")) as sheet, pytest.raises(BadTable, match="sort the file"):
        config_for(sheet, "UTC")


def test_an_hour_that_exists_twice_is_named(tmp_path, capsys):
    """An hour that exists twice is named with its line, unless the times name their zone."""
    lines = ["2026-10-25T01:30:00,1", "2026-10-25T02:30:00,2", "2026-10-25T02:45:00,3"]
    berlin = Options(time="when", timezone="Europe/Berlin")
    for text, named in (
        ("\n".join(["when,a", *lines]), True),
        ("\n".join(["when,a", *(line.replace(",", "+02:00,") for line in lines)]), False),
        ("when,a\n2026-03-29T02:30:00,1\n2026-03-29T03:30:00,2", False),
    ):
        opened(tmp_path, text, berlin)
        printed = capsys.readouterr().err
        assert printed.count("line 3: this hour comes twice") == named
        assert bool(printed) == named


BACK = {  # local times on the day on which Berlin's clocks are set back, and the same in UTC
    "two rows an hour": ("01:30 02:00 02:30 02:00 02:30 03:00",
                         "23:30 00:00 00:30 01:00 01:30 02:00"),
    "a row an hour": ("00:00 01:00 02:00 02:00 03:00", "22:00 23:00 00:00 01:00 02:00"),
    "a row in 90 minutes": ("23:00 00:30 02:00 02:30 04:00", "21:00 22:30 00:00 01:30 03:00"),
    "a row in 40 minutes": ("01:00 01:40 02:20 02:00 02:40 03:20",
                            "23:00 23:40 00:20 01:00 01:40 02:20"),
    "a gap in the second hour": ("02:58 02:59 02:00 02:45 03:00", "00:58 00:59 01:00 01:45 02:00"),
    "a gap over the change": ("01:58 01:59 04:00 04:01", "23:58 23:59 03:00 03:01"),
    "two rows in wrong order": ("02:10 02:11 02:13 02:12 02:14", "00:10 00:11 00:13 00:12 00:14"),
    "a file that begins in the hour": ("02:50 02:00 02:10", "00:50 01:00 01:10"),
}  # fmt: skip


@pytest.mark.parametrize("case", BACK)
def test_the_order_of_rows_tells_two_equal_hours_apart(tmp_path, case):
    """When clocks are set back, the second pass of the same local hour is the later one."""
    local, utc = (text.split() for text in BACK[case])
    days = ["24" if hour > "20" else "25" for hour in local]
    lines = [f"2026-10-{day} {hour},1" for day, hour in zip(days, local, strict=True)]
    options = Options(time="when", timezone="Europe/Berlin")
    ((rows,), _) = opened(tmp_path, "\n".join(["when,a", *lines]), options)
    assert [datetime.fromtimestamp(at, UTC).strftime("%H:%M") for at in rows.times] == utc


def test_each_source_has_an_order_of_its_own(tmp_path):
    """Each source may enter the second pass of an hour at another row, in any part of the file."""
    minutes = [f"{hour:02}:{minute:02}" for hour in (1, 2, 2, 3) for minute in range(60)]
    a = [f"2026-10-25 {minute},a,1" for minute in minutes]
    b = [f"2026-10-25 {minute},b,1" for minute in minutes]
    mixed = [*a[:100], *b[:130], *a[100:], *b[130:]]
    options = Options(time="when", source="machine", timezone="Europe/Berlin")
    path = written(tmp_path, "\n".join(["when,machine,a", *mixed, ""]))
    with Sheet(path, options, follow=True) as sheet:  # a chunk is a row
        rows = list(islice(sheet.rows(None, gaps=False), len(mixed)))
    for source in "ab":
        times = np.array([row.times[0] for row in rows if row.sources[0] == source])
        assert (np.diff(times) == 60).all()


def test_names_of_nested_json_are_joined(tmp_path):
    """A column exists if one of the first lines has it; later names are reported."""
    path = tmp_path / "x.ndjson"
    first = '{"db": {"ms": 1.5, "q": {"n": 2}}, "ok": true}'
    path.write_text(first + '\n{"db": {"ms": 2}, "more": 3}\n')
    with Sheet(path, Options()) as sheet:
        assert sheet.names == ("db.ms", "db.q.n", "ok", "more")
        assert sheet.first.rows == [["1.5", "2", "true", ""], ["2", "", "", "3"]]


def test_a_name_that_comes_late_in_lines_of_json_is_left_out(tmp_path, capsys):
    """One message says which name is left out, and in which line it came."""
    path = tmp_path / "x.ndjson"
    path.write_text('{"a": 1}\n' * 40_000 + '{"a": 2, "b": 3}\n' * 2)
    with Sheet(path, Options()) as sheet:
        assert sum(len(rows.X) for rows in sheet.rows(None, gaps=False)) == 40_002
    err = capsys.readouterr().err
    assert err.count("left out") == 1
    assert 'line 40001: "b" is in none of the first lines: left out' in err


def test_what_is_left_out_around_a_table_is_reported(tmp_path, capsys):
    """Messages name a line of units, and the last lines without times."""
    content = GERMAN.replace("\n", "\n;;1/min;C;\n", 1) + "Mittel;;1,5;2,5;\n"
    _, sheet = opened(tmp_path, content)
    assert 'the line below the header has units, "1/min", "C": skipped' in sheet.notes
    assert (
        "left out at the end, like sums or notes: 1 line, from line 6 on" in capsys.readouterr().err
    )


@pytest.mark.parametrize("note", ["(3 rows)", "3 vehicles exported"])
def test_a_note_below_a_table_is_left_out(tmp_path, capsys, note):
    """A note of one cell, with or without digits, is left out; a cut-off row is refused."""
    content = GERMAN + f"{note}\n\n{note}\n"
    opened(tmp_path, content)
    lines = len(GERMAN.splitlines())
    said = f"left out at the end, like sums or notes: 2 lines, from line {lines + 1} on"
    assert said in capsys.readouterr().err
    with pytest.raises(BadTable, match=f"line {lines + 1} has 1 cells"):
        opened(tmp_path, GERMAN + "01.03.2026 1\n")


def test_the_columns_of_parquet_may_be_named_by_numbers(tmp_path):
    """A Parquet file always has a header."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"0": X[:, 0], "1": X[:, 1]}), tmp_path / "x.parquet")
    with Sheet(tmp_path / "x.parquet", Options()) as sheet:
        (rows,) = sheet.rows(None, gaps=False)
    assert sheet.names == ("0", "1")
    assert np.array_equal(rows.X, X)


def test_limits_and_constants_are_noted(tmp_path):
    """The notes name columns with values beyond a limit, and all constant columns at once."""
    rows = "".join(f"{i},1,2,<0.05\n{i + 0.5},1,2,0.0{i % 9}\n" for i in range(9))
    with Sheet(written(tmp_path, "a,b,c,nitrate\n" + rows), Options(drop=("a",))) as sheet:
        notes = config_for(sheet, "UTC")[1]
    assert 'columns "b", "c" are constant so far: kept, since any change is an anomaly' in notes
    assert 'column "nitrate" has cells such as "<0.05": the limit is taken' in notes


def test_points_between_thousands_need_no_decimal_comma(tmp_path):
    """With decimal commas, 1.234 is 1234 if every point of the column can separate thousands."""
    text = GERMAN.replace("20,25", "1.020").replace("20,5", "999").replace("-20,75", "12.345.678")
    rows, _ = opened(tmp_path, text)
    assert rows[0].X[:, 1].tolist() == [1020, 999, 12345678]
    rows, _ = opened(tmp_path, text.replace("1.020", "1.02"))
    assert rows[0].X[0, 1] == np.float32(1.02)


def test_commas_between_thousands_are_no_decimal_commas(tmp_path):
    """Of two signs in a number the last one is the decimal sign, whatever splits the cells."""
    rows, _ = opened(tmp_path, PLAIN.replace(",", "|").replace("1.5|", "1,001.5|"))
    assert rows[0].X[0, 0] == 1001.5


def test_one_column_may_have_decimal_commas(tmp_path):
    """In a file of one column the comma in a number is a decimal comma, not a delimiter."""
    rows, _ = opened(tmp_path, "speed\n1,5\n2,25\n", Options())
    assert rows[0].X.tolist() == [[1.5], [2.25]]


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("%d. %b %Y %H:%M", ("01. Mär 2026;00:00", "02. Mai 2026;10:00")),
        ("%d %B %Y %H:%M", ("1 mars 2026;00:00", "2 mei 2026;10:00")),
        ("%d.%m.%Y %H:%M", ("01.03.2026;00:00", "02.05.2026;10:00")),
    ],
)
def test_a_time_may_be_in_two_columns_with_a_foreign_month(tmp_path, form, lines):
    """--time takes a column with the date and one with the clock; --out has both as they were."""
    text = "day;clock;a\n" + "".join(f"{line};1,5\n" for line in lines)
    rows, sheet = opened(tmp_path, text, Options("day,clock", time_format=form))
    moments = [datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 5, 2, 10, tzinfo=UTC)]
    assert rows[0].times.tolist() == [moment.timestamp() for moment in moments]
    assert (sheet.names, rows[0].cells[0][:2]) == (("a",), lines[0].split(";"))


def test_the_days_of_a_spreadsheet_are_read_and_recognised(tmp_path):
    """46082.5 is noon of 1 March 2026; without the format, the span of the times tells."""
    text = "when,a\n" + "".join(f"{46082.5 + i / 24},{i % 7}\n" for i in range(40))
    rows, _ = opened(tmp_path, text, Options("when", time_format="excel"))
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
    assert rows[0].times[:2] == pytest.approx([noon, noon + 3600], abs=0.01)
    _, sheet = opened(tmp_path, text, Options("when"))
    notes = config_for(sheet, "UTC")[1]
    assert any("1970-01-01" in note and "--time-format excel" in note for note in notes)


def test_a_column_of_words_that_learning_left_out_is_left_out_of_a_short_file(tmp_path):
    """A shorter file has few words in a column where the learned file had too many."""
    with Sheet(written(tmp_path, PLAIN + LINES[0] + "\n"), Options("when", "machine")) as sheet:
        pass
    wanted = {"columns": [{"name": "speed"}, {"name": "temp"}]}
    assert [name for name, _ in sheet.matched(wanted)] == ["speed", "temp"]
    assert 'the detector has no column "status": left out' in sheet.notes


def test_a_header_may_have_two_lines(tmp_path):
    """A machine stands above what is measured, once for all of its columns."""
    text = "at,pump 1,,pump 2,\n,flow,temp,flow,temp\n1,2,3,4,5\n2,3,4,5,6\n3,4,5,6,7\n"
    rows, sheet = opened(tmp_path, text, Options("at"))
    assert sheet.names == ("pump 1 flow", "pump 1 temp", "pump 2 flow", "pump 2 temp")
    assert rows[0].X[0].tolist() == [2, 3, 4, 5]


def test_a_title_may_stand_above_a_header_of_two_lines(tmp_path):
    """A spreadsheet fills up the lines of its title with delimiters, which name no machines."""
    text = (
        "Historical report,,,,\nPlant 2,,,,\n,,,,\n"
        ",pump 1,,pump 2,\nat,flow,temp,flow,temp\n1,2,3,4,5\n2,3,4,5,6\n3,4,5,6,7\n"
    )
    _, sheet = opened(tmp_path, text, Options("at"))
    assert sheet.names == ("pump 1 flow", "pump 1 temp", "pump 2 flow", "pump 2 temp")
    assert "3 lines before the header: skipped" in sheet.notes


def test_a_word_in_a_column_of_numbers_is_a_blank_cell(tmp_path, capsys):
    """A word is named once for each column; where blank cells are refused, it is refused."""
    cells = ["1.5", "no signal", "2.5", "Bad", "3.5", "1.5"]
    text = "at,x,y,z\n" + "".join(f"{i},{x},{i % 3},{x} mm\n" for i, x in enumerate(cells))
    path = tmp_path / "x.csv"
    path.write_text(text.replace("Bad mm", "").replace("no signal mm", "Fault"))
    with Sheet(path, Options("at")) as sheet:
        columns = sheet.columns()
        assert columns == [("x", "number"), ("y", "number"), ("z", "number")]
        assert sheet.blanks
        (rows,) = sheet.rows(columns, gaps=True)
        assert np.isnan(rows.X[[1, 3]][:, [0, 2]]).all()
        assert rows.X[4].tolist() == [3.5, 1.0, 3.5]
    err = capsys.readouterr().err
    assert 'line 3, column x: "no signal" is not a number: words in this column are' in err
    assert err.count("is not a number") == 2
    with pytest.raises(BadTable, match='line 3, column x: "no signal" is not a number'):
        opened(tmp_path, text, Options("at", drop=("z",)))


def test_a_person_can_say_that_numbers_are_codes(tmp_path):
    """A column of numbers is a category if `--category` names it; a wrong name is refused."""
    text = "at,code,speed\n" + "".join(f"{i},{(200, 404)[i % 2]},{i % 7}\n" for i in range(40))
    path = tmp_path / "x.csv"
    path.write_text(text)
    with Sheet(path, Options("at", categories=("code",))) as sheet:
        assert sheet.columns() == [("code", "category"), ("speed", "number")]
    with Sheet(path, Options("at", categories=("2",))) as sheet:
        assert sheet.columns() == [("code", "category"), ("speed", "number")]
    with pytest.raises(BadTable, match=r'no column "status" \(--category\)'):
        Sheet(path, Options("at", categories=("status",)))
    path.write_text("1,2.5\n2,2.7\n1,2.6\n")
    with pytest.raises(BadTable, match="--category needs names of the columns"):
        Sheet(path, Options(categories=("1",)))


def test_null_in_place_of_an_object_is_no_column(tmp_path, capsys):
    """In lines of JSON an object may be null as a whole; its members are then blank."""
    lines = ['{"a": 1, "db": null, "x": null}', '{"a": 2, "db": {"ms": 3}}'] * 3
    path = tmp_path / "x.ndjson"
    path.write_text("\n".join(lines) + '\n{"a": 1, "db": null}\n')
    with Sheet(path, Options()) as sheet:
        assert sheet.names == ("a", "x", "db.ms")
    assert "left out" not in capsys.readouterr().err


def test_a_growing_file_may_have_columns_that_the_detector_lacks(tmp_path):
    """`learn` left out a counter, which the first row of a growing file cannot show to be one."""
    path = tmp_path / "x.csv"
    path.write_text("when,speed,energy,note\n1,0.5,1843.6,\n")
    config = {"columns": [{"name": "speed"}]}
    with Sheet(path, Options(time="when"), follow=True) as sheet:
        assert sheet.matched(config) == [("speed", "number")]
        assert 'the detector has no column "energy": left out' in sheet.notes
    path.write_text("when,pace,energy\n1,0.5,1843.6\n")
    with (
        Sheet(path, Options(time="when"), follow=True) as sheet,
        pytest.raises(BadTable, match='columns "speed" missing'),
    ):
        sheet.matched(config)
