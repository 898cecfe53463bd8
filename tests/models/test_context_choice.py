"""The context that is chosen for rows in time, and when none is chosen."""

import numpy as np
import pytest

from models.context import SCORED, derive
from models.context_choice import choose

RNG = np.random.default_rng(0)
MINUTES = 60.0 * np.arange(2000)


def walks(n: int) -> np.ndarray:
    """Return n rows of two numbers that change slowly, float32."""
    noise, rows = RNG.normal(size=(n, 2)), np.zeros((n, 2))
    for i in range(1, n):
        rows[i] = 0.9 * rows[i - 1] + noise[i]
    return rows.astype(np.float32)


def test_uncorrelated_or_undated_rows_get_no_context():
    """Rows without correlation, without timestamps, or from very short sources get no context."""
    alone = RNG.normal(size=(500, 2)).astype(np.float32)
    assert choose(alone, MINUTES[:500], None)[0] is None
    slow = walks(500)
    context, why = choose(slow, None, None)
    assert (context, why) == (None, "no context: the rows came without timestamps")
    assert choose(walks(60), MINUTES[:60], [str(i // 4) for i in range(60)])[0] is None


@pytest.mark.parametrize(("n", "chosen"), [(2000, True), (100, False)])
def test_a_weak_correlation_counts_if_rows_are_many(n: int, chosen: bool):
    """A correlation of 0.2 leads to a context among many rows; among few it may be chance."""
    rows = np.random.default_rng(1).normal(size=(n, 5)).astype(np.float32)
    for i in range(1, n):
        rows[i] = 0.2 * rows[i - 1] + 0.98 * rows[i]
    assert (choose(rows, MINUTES[:n], None)[0] is not None) is chosen


def test_short_sources_get_a_shorter_context():
    """A long source gets 10 previous rows, short ones get fewer."""
    chosen = [choose(walks(n), MINUTES[:n], ["a", "b"] * (n // 2))[0] for n in (1000, 100, 40, 30)]
    assert [context and context.over for context in chosen] == [10, 10, 3, None]
    assert chosen[0].derive == ("value", "deviation")
    assert chosen[0].every is None


def test_a_clock_is_chosen_if_rows_have_gaps():
    """A clock is chosen if rows have gaps; rows without gaps need none."""
    there = np.ones(1200, bool)
    there[500:560] = False
    context, why = choose(walks(1140), MINUTES[:1200][there], None)
    assert (context.every, context.fill) == ("1m", "previous")
    assert "every 1m, and the context starts again" in why


def test_a_clock_may_tick_every_two_minutes_and_leaves_most_rows_judged():
    """A log of shifts starts its context again each day, unless its shifts are too short for it."""
    for step, rows_a_day, every in ((120.0, 300, "2m"), (3600.0, 10, None), (600.0, 30, None)):
        times = np.arange(2000) // rows_a_day * 86_400.0 + np.arange(2000) % rows_a_day * step
        rows = walks(2000)
        context, _ = choose(rows, times, None)
        assert (context.over, context.every) == (10, every)
        states = derive(context, rows, times=times).states
        assert (states == SCORED).mean() > 0.75


def test_a_calendar_is_chosen_for_a_season_over_two_weeks():
    """A season by the hours is chosen only if the rows span two weeks."""
    hours = 3600.0 * np.arange(21 * 24)
    daily = np.sin(2 * np.pi * hours / 86_400)[:, None] + 0.1 * RNG.normal(size=(len(hours), 2))
    context, why = choose(daily.astype(np.float32), hours, None)
    assert "calendar" in context.derive
    assert "hour explains" in why
    week = slice(0, 7 * 24)
    assert "calendar" not in choose(daily[week].astype(np.float32), hours[week], None)[0].derive
