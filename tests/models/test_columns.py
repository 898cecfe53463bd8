"""Columns by name: the columns of a table are sorted, and wrong ones are named."""

import numpy as np
import pytest

from models import Config, VectorError, train
from models.columns import Column, order, quoted
from models.errors import ConfigError

RNG = np.random.default_rng(0)


class Frame:
    """The minimum of a table with named columns, as in pandas and polars."""

    def __init__(self, **columns):
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        return self._columns[name]

    def __len__(self):
        return len(self._columns[self.columns[0]])


SPEED, TEMP, LOAD = (RNG.normal(size=200) for _ in range(3))


@pytest.fixture(scope="module")
def version():
    """Return a version that learned a table."""
    return train(None, Frame(speed=SPEED, temp=20 + TEMP, load=100 + LOAD))


def test_a_table_is_learned_with_the_names_of_its_columns(version):
    """A table is learned with its columns' names, and explanations use them."""
    assert version.features == ("speed", "temp", "load")
    first, *_ = version.explain(Frame(load=[100.0], speed=[50.0], temp=[20.0]), 1)[0]
    assert first.feature == "speed"


def test_columns_in_another_order_score_alike(version):
    """Columns in another order give the same scores."""
    swapped = Frame(load=100 + LOAD, speed=SPEED, temp=20 + TEMP)
    by_position = np.column_stack([SPEED, 20 + TEMP, 100 + LOAD])
    assert np.array_equal(version.score(swapped), version.score(by_position))


def test_the_next_version_keeps_the_names(version):
    """The next version learns a table with other column order in the first version's order."""
    config = Config()
    second = train(version, Frame(temp=20 + TEMP, load=100 + LOAD, speed=SPEED), config)
    assert second.features == version.features
    assert second.threshold > second.score(Frame(load=[100.0], speed=[0.0], temp=[20.0]))[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"speed": [1.0], "temp": [1.0]}, '"load" missing'),
        ({"speed": [1.0], "temp": [1.0], "load": [1.0], "x": [1.0]}, '"x" unknown'),
        ({"speed": [1.0], "temp": ["hot"], "load": [1.0]}, '"temp" does not hold numbers'),
        ({"speed": [1.0], "temp": [1.0], "load": [np.nan]}, 'column "load" is not finite'),
    ],
)
def test_a_table_that_does_not_fit_names_the_column(version, columns, message):
    """A table that does not fit raises VectorError, which names the column."""
    with pytest.raises(VectorError, match=message):
        version.score(Frame(**columns))


def test_a_table_of_pyarrow_is_read_by_name():
    """Its columns may come in another order; null is a missing number or word."""
    pa = pytest.importorskip("pyarrow")
    words = ["run", None, *["idle", "run"] * 99]
    table = pa.table({"speed": [*SPEED[:199], None], "state": words})
    columns = (Column("state", "category"), Column("speed"))
    learned = train(None, table, Config(kind="mahalanobis", columns=columns, missing="impute"))
    assert np.isfinite(learned.score(table)).all()


def test_what_is_no_number_is_refused_in_words():
    """Times, words and other objects are VectorErrors that say what to do."""
    at = np.datetime64("2026-01-01") + np.arange(200)
    for wrong, why in (
        (Frame(speed=SPEED, at=at), 'column "at" holds times; leave it out'),
        (Frame(speed=["a", "b"]), r'Config\(columns=...\) with Column\("speed", "category"\)'),
        ([{"speed": 1.0}], "not a matrix of numbers"),
        (np.array([["a"]]), "not a matrix of numbers"),
    ):
        with pytest.raises(VectorError, match=why):
            train(None, wrong, Config())


def test_messages_have_at_most_three_short_escaped_names():
    """A message has at most three names, shortened and escaped, so it cannot flood a log."""
    assert quoted(["a", "b", "c", "d", "e"]) == '"a", "b", "c" and 2 more'
    assert quoted(["x" * 100]) == f'"{"x" * 64}..."'
    assert quoted(['\x1b[2J"\n\\']) == r'"\x1b[2J\x22\x0a\x5c"'
    assert quoted(["größe"]) == '"größe"'


def test_a_header_with_a_name_twice_is_refused():
    """A header with a name twice is refused, because it is ambiguous."""
    with pytest.raises(VectorError, match='"a" given twice'):
        order(["a", "b", "a"], ["a", "b"])


def test_more_columns_are_taken_only_when_asked():
    """Additional columns are dropped only on request."""
    assert order(["x", "b", "a"], ["a", "b"], extra=True) == [2, 1]


def test_a_drawn_flag_is_one_of_its_two_values():
    """A drawn flag has one of its two values, like the learned rows."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=200), rng.random(200) < 0.3]).astype(np.float32)
    columns = (Column("speed"), Column("valve", "flag"))
    drawn = train(None, X, Config(columns=columns, kind="mahalanobis")).sample(300, seed=0)
    assert set(drawn[:, 1].tolist()) == {0.0, 1.0}
    assert 0.2 < drawn[:, 1].mean() < 0.4
    assert len(np.unique(drawn[:, 0])) > 100


def test_columns_have_names_and_types():
    """`columns` sets the dimension, as `features` does."""
    config = Config(columns=(Column("speed"), Column("valve", "flag")))
    assert config.dimension == 2
    assert config.names == ("speed", "valve")
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": (Column("a"),), "features": ("a",)},
        {"columns": ()},
        {"columns": (Column("a"), Column("a"))},
        {"columns": (Column("a"),), "dimension": 2},
    ],
)
def test_columns_that_contradict_are_refused(wrong):
    """A config with both forms, no column, a name twice, or another dimension is refused."""
    with pytest.raises(ConfigError):
        Config(**wrong)


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 129])
def test_a_name_that_cannot_be_shown_is_refused(name):
    """A name with characters that cannot be shown is refused, because pages show names."""
    with pytest.raises(ConfigError):
        Column(name)


class Labelled(np.ndarray):
    """A matrix with labels of its columns, as a DataFrame without names has them."""

    columns: tuple = ()


@pytest.mark.parametrize("labels", [(2, 0, 1), (("a", 1), ("a", 2), ("b", 1)), ("a", 1, 2)])
def test_labels_that_are_no_names_are_refused(labels):
    """Labels that are neither names nor 0, 1, 2, ... are refused; with these, positions count."""
    X = np.column_stack([SPEED, TEMP, LOAD]).view(Labelled)
    X.columns = labels
    with pytest.raises(VectorError, match="labels are not names; rename its columns"):
        train(None, X, Config(kind="mahalanobis"))
    X.columns = range(3)
    assert train(None, X, Config(kind="mahalanobis")).dimension == 3
