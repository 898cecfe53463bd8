"""A table with one reading in each row gets a column for each thing measured."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from service.cli.new_detector import config_for
from service.cli.sheet import Sheet
from service.cli.table_files import BadTable
from service.cli.text_table import Options

THINGS = ("flow", "heat", "load")
X = np.arange(36.0).reshape(12, 3) % 7
LONG = Options(time="when", pivot="sensor")


def readings(seconds=0, machines=("",)):
    """Return lines of readings, each thing `seconds` after the one before."""
    return [
        f"{60 * row + seconds * j + 1_767_225_600},{machine},{thing},{X[row, j]:g}"
        for row, machine, (j, thing) in product(range(12), machines, enumerate(THINGS))
    ]


def sheet(tmp_path, lines, options):
    """Return the sheet of a file with these lines."""
    path = tmp_path / "x.csv"
    path.write_text("\n".join(["when,machine,sensor,value", *lines, ""]))
    return Sheet(path, options)


@pytest.mark.parametrize("seconds", [0, 5])
@pytest.mark.parametrize("machines", [("",), ("a", "b")])
@pytest.mark.parametrize("by_thing", [False, True])
def test_each_thing_gets_a_column(tmp_path, seconds, machines, by_thing):
    """The order of the readings does not matter, nor whether things are read at one time."""
    lines = readings(seconds, machines)
    lines = sorted(lines, key=lambda line: line.split(",")[2]) if by_thing else lines
    source = "machine" if len(machines) > 1 else None
    drop = ("machine",) if source is None else ()
    options = Options("when", source, drop, pivot="sensor")
    with sheet(tmp_path, lines, options) as table:
        (rows,) = table.rows(None, gaps=False)
    assert table.names == THINGS
    assert rows.X.tolist() == np.repeat(X, len(machines), axis=0).tolist()
    assert np.unique(np.diff(rows.times)).tolist() == ([0, 60] if source else [60])
    assert rows.sources == (("a", "b") * 12 if source else None)


def test_a_missing_reading_is_blank(tmp_path):
    """A row keeps its place if a reading is missing; columns of things can be dropped too."""
    lines = [line for i, line in enumerate(readings()) if i != 4]
    options = Options("when", drop=("machine", "load"), pivot="sensor")
    with sheet(tmp_path, lines, options) as table:
        (rows,) = table.rows(None, gaps=True)
    assert table.names == ("flow", "heat")
    assert np.isnan(rows.X[1]).tolist() == [False, True]
    assert rows.where(0).endswith("line 4")


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (LONG, "one column of values"),
        (Options("when", pivot="x"), "the names of columns"),
        (Options(pivot="sensor"), "--time"),
    ],
)
def test_a_refused_pivot_says_what_it_needs(tmp_path, options, needed):
    """Without a time, or with more than one column of values, the message says what is needed."""
    with pytest.raises(BadTable, match=f"--pivot needs (.* )?{needed}"):
        sheet(tmp_path, readings(machines=("a", "b")), options)


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_new_detector_asks_for_a_pivot(tmp_path, seconds):
    """A new detector is not made of rows that have one reading each."""
    with (
        sheet(tmp_path, readings(seconds), Options("when", drop=("machine",))) as table,
        pytest.raises(BadTable, match=r"of 3 things.*--pivot sensor,.*--source sensor"),
    ):
        config_for(table, "UTC")


def test_readings_that_come_twice_are_counted(tmp_path):
    """A note says that the readings of two machines are mixed."""
    options = Options("when", drop=("machine",), pivot="sensor")
    with sheet(tmp_path, readings(machines=("a", "b")), options) as table:
        assert any("36 readings have the time and the name of" in note for note in table.notes)


def test_a_table_of_states_needs_no_pivot(tmp_path):
    """Words in irregular order beside one number are a category, not names of readings."""
    words = np.random.default_rng(0).choice(["run", "idle", "off"], 60)
    lines = [f"{60 * i},,{word},{i % 7}" for i, word in enumerate(words)]
    with sheet(tmp_path, lines, Options("when", drop=("machine",))) as table:
        config, _ = config_for(table, "UTC")
    assert [column["type"] for column in config["columns"]] == ["category", "number"]


def test_a_column_that_the_pivot_makes_can_be_a_category(tmp_path):
    """`--category` knows the columns that `--pivot` makes, and refuses other names."""
    options = Options("when", drop=("machine",), pivot="sensor", categories=("load",))
    with sheet(tmp_path, readings(), options) as table:
        assert dict(table.columns())["load"] == "category"
    with pytest.raises(BadTable, match="valve"):
        sheet(tmp_path, readings(), replace(options, categories=("valve",)))


def test_missing_columns_lead_to_the_advice_to_pivot(tmp_path):
    """If columns are missing because each row has one reading, the message advises --pivot."""
    with (
        sheet(tmp_path, readings(), Options("when", drop=("machine",))) as table,
        pytest.raises(BadTable, match=r'"flow", "heat", "load" missing.*give --pivot sensor'),
    ):
        table.matched({"features": list(THINGS)})
