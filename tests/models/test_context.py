"""Features derived from earlier rows: their values, and rows that get none."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from models.context import CONTEXT, LATE, OFF, SCORED, WARMING, Context, derive, seconds
from models.errors import ConfigError, VectorError

ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
MINUTES = 60.0 * np.arange(60)
CLOCKED = [Context(over=7, every="1m", fill=fill) for fill in ("none", "previous", "linear")]


@pytest.mark.parametrize("context", [Context(over=7), *CLOCKED])
def test_a_deviation_is_from_the_mean_of_earlier_rows(context):
    """On rows without gaps a deviation is the distance from the mean of the rows before."""
    features = derive(context, ROWS, times=MINUTES).features
    for row in range(7, 60):
        mean = ROWS[row - 7 : row].astype(np.float64).mean(axis=0)
        assert features[row, 3:] == pytest.approx(ROWS[row] - mean, abs=1e-5)
    assert np.array_equal(features[:, :3], ROWS)


@pytest.mark.parametrize("context", [Context(over=7), *CLOCKED])
def test_the_last_rows_suffice_to_derive_a_row(context):
    """A row is derived alike from a whole history and from only the rows before it."""
    wild = ROWS.copy()
    wild[3] = 3e38  # must not affect rows after its window
    whole = derive(context, wild, times=MINUTES)
    for row in (11, 30, 59):
        rows = slice(row - 7, row + 1)
        last_rows = derive(context, wild[rows], times=MINUTES[rows], context_rows=7)
        assert np.array_equal(last_rows.features[-1], whole.features[row])
        assert last_rows.states.tolist() == [CONTEXT] * 7 + [SCORED]


def test_sources_have_a_context_each():
    """Alternating rows of two sources are derived as if each source came alone."""
    sources = ["a", "b"] * 30
    mixed = derive(Context(over=5), ROWS, sources=sources)
    for i in range(2):
        alone = derive(Context(over=5), ROWS[i::2])
        assert np.array_equal(mixed.features[i::2], alone.features)
        assert np.array_equal(mixed.states[i::2], alone.states)
        assert alone.states.tolist() == [WARMING] * 5 + [SCORED] * 25


def test_a_row_not_newer_than_the_one_before_is_late():
    """A row not newer than the one before is reported as late, and the others ignore it."""
    times = MINUTES.copy()
    times[20] = times[19]
    times[40] = times[10]
    derived = derive(Context(over=5), ROWS, times=times)
    assert np.flatnonzero(derived.states == LATE).tolist() == [20, 40]
    kept = np.delete(np.arange(60), [20, 40])
    alone = derive(Context(over=5), ROWS[kept], times=times[kept])
    assert np.array_equal(derived.features[kept], alone.features)


def test_rows_that_are_off_are_no_context():
    """Rows with the machine off are no context: the window spans the pause."""
    off = np.zeros(60, bool)
    off[20:30] = True
    derived = derive(Context(over=5), ROWS, left_out=off)
    assert np.flatnonzero(derived.states == OFF).tolist() == list(range(20, 30))
    assert np.array_equal(derived.features[~off], derive(Context(over=5), ROWS[~off]).features)


def test_a_gap_starts_the_context_anew_unless_it_is_filled():
    """With `every`, a missing tick starts the context again unless it is filled."""
    kept = np.delete(np.arange(60), 30)
    X, times = ROWS[kept], MINUTES[kept]
    none = derive(Context(over=5, every="1m"), X, times=times)
    assert np.flatnonzero(none.states == WARMING).tolist() == [*range(5), *range(30, 35)]
    filled = {
        "previous": ROWS[29],
        "linear": (ROWS[29] + ROWS[31]) / 2,
    }
    for fill, row in filled.items():
        derived = derive(Context(over=5, every="1m", fill=fill), X, times=times)
        assert np.flatnonzero(derived.states == WARMING).tolist() == list(range(5))
        mean = np.stack([*ROWS[28:30], row, *ROWS[31:33]]).mean(axis=0)
        assert derived.features[32, 3:] == pytest.approx(ROWS[33] - mean, abs=1e-5)


def test_a_gap_as_long_as_the_context_is_not_filled():
    """A gap as long as the context is not filled, because old values are not valid any more."""
    times = MINUTES.copy()
    times[30:] += 3600.0
    derived = derive(Context(over=5, every="1m", fill="previous"), ROWS, times=times)
    assert np.flatnonzero(derived.states == WARMING).tolist() == [*range(5), *range(30, 35)]


def test_missing_values_are_left_out_of_the_mean():
    """A mean uses the rows that have the number; a missing number has no deviation."""
    X = ROWS.copy()
    X[10, 1] = np.nan
    features = derive(Context(over=4), X).features
    assert np.isnan(features[10, 4])
    assert features[12, 4] == pytest.approx(X[12, 1] - X[[8, 9, 11], 1].mean(), abs=1e-6)


def test_only_numbers_deviate():
    """A flag has no deviation, also where numbers are missing."""
    numbers = np.array([True, False, True])
    both = derive(Context(over=2), ROWS, numbers).features
    assert both.shape == (60, 5)
    alone = derive(Context(over=2, derive=("deviation",)), ROWS, numbers).features
    assert np.array_equal(alone[:, 0], ROWS[:, 1])
    assert np.array_equal(alone[2:, 1:], both[2:, 3:])
    assert Context(over=2, derive=("deviation",)).origins(numbers) == [
        (1, "value"), (0, "deviation"), (2, "deviation"),
    ]  # fmt: skip


def test_the_calendar_follows_the_clock_of_its_zone():
    """Hour and weekday follow the zone's wall clock, also over a change to summer time."""
    zone = ZoneInfo("Europe/Berlin")
    moments = [
        datetime(2026, 3, 29, tzinfo=UTC) + timedelta(minutes=20 * step) for step in range(9)
    ]
    times = np.array([moment.timestamp() for moment in moments])
    context = Context(derive=("value", "calendar"), timezone="Europe/Berlin")
    derived = derive(context, ROWS[:9], times=times)
    assert derived.states.tolist() == [SCORED] * 9
    for row, moment in zip(derived.features[:, 3:], moments, strict=True):
        local = moment.astimezone(zone)
        hour = 2 * np.pi * (local.hour * 3600 + local.minute * 60) / 86_400
        week = 2 * np.pi * (local.weekday() * 24 + local.hour + local.minute / 60) / 168
        assert row == pytest.approx(
            [np.sin(hour), np.cos(hour), np.sin(week), np.cos(week)], abs=1e-5
        )


def test_a_calendar_or_clock_without_times_is_refused():
    """A calendar or a clock without timestamps is refused, and the message says so."""
    for context in (Context(derive=("value", "calendar")), Context(every="1m")):
        with pytest.raises(VectorError, match="timestamps"):
            derive(context, ROWS)


@pytest.mark.parametrize("columns", [1, 3, 40])
@pytest.mark.parametrize(
    "kinds",
    [("value",), ("deviation",), ("value", "deviation"), ("value", "deviation", "calendar")],
)
def test_columns_are_counted_from_features(columns, kinds):
    """The number of columns follows from the number of derived features."""
    context = Context(derive=kinds)
    width = context.width(np.ones(columns, bool))
    assert context.columns_in(width) == columns
    features = derive(context, np.ones((12, columns)), times=np.arange(12.0)).features
    assert features.shape == (12, width)


def test_an_impossible_number_of_features_is_refused():
    """A number of features that no number of columns gives is refused."""
    with pytest.raises(VectorError, match="5 features"):
        Context().columns_in(5)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"over": 0}, "over"),
        ({"over": 1001}, "over"),
        ({"over": True}, "over"),
        ({"every": "1x"}, "every"),
        ({"every": "0m"}, "every"),
        ({"fill": "spline", "every": "1m"}, "fill"),
        ({"fill": "linear"}, "fill"),
        ({"derive": ["slope"]}, "derive"),
        ({"derive": ["value", "value"]}, "derive"),
        ({"derive": ["calendar"]}, "derive"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
    ],
)
def test_a_context_that_cannot_be_derived_is_refused_by_name(wrong, named):
    """The message for an impossible context names the field."""
    with pytest.raises(ConfigError, match=f"context.{named}"):
        Context(**wrong)


def test_durations_are_a_number_and_a_unit():
    """A duration is a number with a unit of seconds, minutes, hours or days."""
    assert [seconds(text) for text in ("90s", "1m", "1.5h", "2d")] == [90, 60, 5400, 172_800]
