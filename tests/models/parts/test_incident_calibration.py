"""The rate of false incidents that the calibration holds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from models.parts.incident_calibration import (
    BUILT_IN,
    LADDER,
    choose,
    count_openings,
    false_incidents,
    incidents_opened,
    joined,
    poisson_interval,
    severities_by_rank,
)
from models.parts.lineage import FalseIncidents

DAY_OF_MINUTES = 1440.0


def test_a_run_of_alarms_opens_once() -> None:
    """One long run of alarms opens one incident; two faults far apart open two."""
    assert incidents_opened(range(100), 3, 10) == 1
    assert incidents_opened([*range(5), *range(30, 35)], 3, 10) == 2
    assert incidents_opened([0, 20, 40], 3, 10) == 0
    assert incidents_opened([0, 20, 40], 1, 1) == 3
    # Single alarms do not keep the first incident open.
    assert incidents_opened([*range(5), 14, 24, 34, *range(44, 47)], 3, 10) == 2


def test_no_window_spans_two_runs() -> None:
    """No window reaches over a break between two runs of rows."""
    severities = np.zeros(20)
    severities[[9, 10]] = 1.5
    one_run = count_openings(severities, 0.01)
    two_runs = count_openings(severities, 0.01, np.repeat([0, 1], 10))
    two_of_two = LADDER.index((2, 2))
    assert (one_run.openings[two_of_two], two_runs.openings[two_of_two]) == (1, 0)
    assert (one_run.peaks, two_runs.peaks) == ((1.5,), (1.5, 1.5))


def severities_in_runs(n: int, seed: int) -> np.ndarray:
    """Return severities (n,) of normals whose alarms come in runs: an autoregressive process."""
    rng = np.random.default_rng(seed)
    x, noise = np.zeros(n), rng.normal(size=n) * math.sqrt(1 - 0.9**2)
    for i in range(1, n):
        x[i] = 0.9 * x[i - 1] + noise[i]
    ranks = np.argsort(np.argsort(x))
    p = (n - ranks) / (n + 1.0)
    return np.log(p) / math.log(0.01)


@pytest.mark.parametrize("asked", [1.0, 3.0, 10.0])
def test_the_asked_rate_holds_on_later_normals(asked: float) -> None:
    """On normals whose alarms come in runs, later ones open at most twice as many as asked."""
    chosen = choose(
        count_openings(severities_in_runs(40_000, 1), 0.01), asked, DAY_OF_MINUTES, 0.01, 300.0
    )
    assert chosen.calibration == "exact"
    assert chosen.per_day is not None
    assert chosen.per_day <= asked
    later = severities_in_runs(40_000, 2)
    rule = chosen.rule
    opened = incidents_opened(np.flatnonzero(later >= 1.0).tolist(), rule.k, rule.m)
    opened += incidents_opened(np.flatnonzero(later >= rule.alone).tolist(), 1, rule.m)
    low, _ = poisson_interval(opened)
    assert low / 40_000 * DAY_OF_MINUTES <= 2 * asked


def test_a_rarer_alarm_is_a_stricter_rule() -> None:
    """For fewer false incidents a day a rule needs more alarming rows or a more severe one."""
    counts = count_openings(severities_in_runs(40_000, 1), 0.01)
    rules = [choose(counts, asked, DAY_OF_MINUTES, 0.01, 300.0).rule for asked in (10.0, 1.0, 0.2)]
    assert [LADDER.index((rule.k, rule.m)) for rule in rules] == sorted(
        LADDER.index((rule.k, rule.m)) for rule in rules
    )
    assert rules[0].alone < rules[-1].alone


@pytest.mark.parametrize(
    ("counts", "rows_per_day"),
    [
        (None, 1440.0),  # a version of an earlier release
        (
            count_openings(np.zeros(500), 0.01),
            1440.0,
        ),  # a third of a day cannot show a rate of one a day
        (count_openings(np.zeros(50_000), 0.01), None),  # no traffic yet
        (count_openings(np.zeros(50_000), 0.001), 1440.0),  # calibrated under another alpha
    ],
)
def test_with_too_few_rows_the_built_in_rule_decides(
    counts: FalseIncidents | None, rows_per_day: float | None
) -> None:
    """If calibration or traffic is too small, the built-in rule decides and states no rate."""
    chosen = choose(counts, 1.0, rows_per_day, 0.01, 300.0)
    assert (chosen.rule.k, chosen.rule.m) == BUILT_IN
    assert (chosen.calibration, chosen.per_day, chosen.high) == ("insufficient", None, None)
    assert chosen.rule.alone > 1.0


def test_a_short_calibration_with_long_runs_asks_for_more_rows() -> None:
    """If the normals cannot show the rate, but contradict it, a later rule decides."""
    severities = np.zeros(700)  # half a day
    severities[[100, 101, 102, 103, 400, 401, 402, 403]] = 1.2
    chosen = choose(count_openings(severities, 0.01), 1.0, DAY_OF_MINUTES, 0.01, 300.0)
    assert (chosen.rule.k, chosen.rule.m) == (5, 20)
    assert (chosen.counted_rows, chosen.needed_rows) == (700, 3 * DAY_OF_MINUTES)
    assert (chosen.calibration, chosen.per_day) == ("insufficient", None)


def test_without_an_alarm_the_upper_bound_is_stated() -> None:
    """If no calibration normal alarmed, the rate's upper bound is stated."""
    chosen = choose(count_openings(np.zeros(14_400), 0.01), 1.0, 1440.0, 0.01, 300.0)
    assert (chosen.per_day, chosen.low) == (0.0, 0.0)
    assert chosen.high == pytest.approx(3.689 / 10, abs=0.001)


def test_the_rows_that_any_rate_needs_are_a_number_of_json() -> None:
    """However low the asked rate is, the number of rows fits into JSON."""
    for asked in (1e-16, 5e-324):
        needed = choose(None, asked, 1e5, 0.01, 300.0).needed_rows
        assert needed is not None
        assert 1e15 < needed < 2**53


def test_counts_for_other_rules_are_ignored() -> None:
    """Counts in a version's lineage are used if they are for the present rules."""
    counts = count_openings(severities_in_runs(2_000, 3), 0.01)
    others = FalseIncidents(rows=3, openings=(1,), peaks=(), alpha=0.1)
    for kept, expected in ((counts, counts), (None, None), (others, None)):
        assert false_incidents(SimpleNamespace(incidents=kept)) == expected


def test_training_rows_alarm_by_rank() -> None:
    """Of the rows that a version was trained on, the asked share alarms, in their runs."""
    scores = np.random.default_rng(0).normal(size=10_000)
    severities = severities_by_rank(scores, 0.01)
    assert (severities >= 1.0).mean() == pytest.approx(0.01, abs=2e-4)
    assert (np.argsort(severities) == np.argsort(scores)).all()


def test_counts_of_a_lineage_add_up() -> None:
    """Counts of earlier experiences are added if they have the same alpha."""
    first, second = (
        count_openings(severities_in_runs(2_000, 3), 0.01),
        count_openings(severities_in_runs(3_000, 4), 0.01),
    )
    both = joined(second, first)
    assert both.rows == 5_000
    assert both.openings[0] == first.openings[0] + second.openings[0]
    assert both.peaks[0] == max(first.peaks[0], second.peaks[0])
    assert joined(second, None) == second
    assert joined(second, count_openings(np.zeros(10), 0.1)) == second
