"""Batches that wait for a context, and the rows that are learned once a context is chosen."""

import numpy as np

from models.context import Context, derive
from service.domain.chosen_context import ChosenContext, read_choice
from service.domain.detector_config import parse
from service.domain.raw_batch import RawBatch, RowDetails, learnable

AUTO = parse({"context": "auto", "dimension": 2})
RNG = np.random.default_rng(0)
ROWS = np.cumsum(RNG.normal(size=(200, 2)), axis=0).astype(np.float32)
MINUTES = 60.0 * np.arange(200)
OVER_10 = ChosenContext(context=Context(over=10), why="asked for")


def batch(first: int, last: int, context_rows: int = 0, *, timed: bool = True) -> RawBatch:
    """Return the rows from `first` to `last` as the store returns them."""
    X = ROWS[first:last]
    beside = RowDetails.of(MINUTES[first:last] if timed else None, None, context_rows, None, len(X))
    return RawBatch.read(X.tobytes() + beside.written(), len(X), 2, raw=True)


def test_the_order_of_batches_does_not_matter():
    """Batches are derived as one history; rows that batches repeat as context count once."""
    rows = learnable([batch(90, 200, 10), batch(0, 100)], AUTO, None)
    assert rows.chosen.context is not None
    over = rows.chosen.context.over
    features = derive(rows.chosen.context, ROWS, times=MINUTES).features
    expected = [*range(100, 200), *range(over, 100)]
    assert np.array_equal(rows.features, features[expected])
    assert int(rows.kept.sum()) == 200 - over
    assert read_choice(rows.chosen.written()) == rows.chosen


def test_without_timestamps_rows_are_learned_as_they_came():
    """Without timestamps rows are learned as they came, and the choice says so."""
    rows = learnable([batch(0, 60, timed=False)], AUTO, None)
    assert (rows.chosen.context, rows.kept.all()) == (None, True)
    assert rows.chosen.why == "no context: the rows came without timestamps"
    assert np.array_equal(rows.features, ROWS[:60])


def test_a_context_that_was_chosen_stays():
    """Batches derived at arrival and later ones are learned together, in order."""
    done = RawBatch(derive(Context(over=10), ROWS[:50]).features, None)
    rows = learnable([done, batch(50, 100), batch(100, 140, timed=False)], AUTO, OVER_10)
    assert rows.chosen is OVER_10
    assert rows.features.shape == (50 + 40 + 30, 4)
    assert np.array_equal(rows.features[:50], done.X)
    assert np.array_equal(rows.features[50], derive(Context(over=10), ROWS[50:61]).features[10])
