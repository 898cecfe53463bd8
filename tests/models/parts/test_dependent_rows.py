"""Calibration with rows that depend on the rows before them."""

import numpy as np
import pytest
from scipy.signal import lfilter

from models.parts.calibration import Calibration
from models.parts.dependent_rows import independent_rows, narrowed, widened

N, WORTH = 1_000, 80


@pytest.mark.parametrize("n", [50, 300, 2_000])
def test_independent_rows_are_worth_their_number(n: int) -> None:
    """Chance makes hardly any rows count as dependent, however few they are."""
    rng = np.random.default_rng(0)
    worth = [independent_rows(np.arange(n), rng.normal(size=n)) for _ in range(100)]
    assert sum(each < n for each in worth) <= 2


def test_slow_scores_are_worth_few_rows_wherever_they_are_held_out() -> None:
    """Gaps between stretches of rows do not hide that scores change slowly within them."""
    rng = np.random.default_rng(0)
    rows = np.arange(8_000)
    scores = np.abs(lfilter([1.0], [1.0, -0.97], rng.normal(size=len(rows))))
    held_out = rng.permutation(rows[rows // 500 % 2 == 0])
    whole, part = independent_rows(rows, scores), independent_rows(held_out, scores[held_out])
    assert 100 < whole < 500
    assert part == pytest.approx(whole / 2, rel=0.6)


def test_very_slow_scores_are_worth_very_few_rows() -> None:
    """The number of independent rows has no least value, but the threshold counts at least 60."""
    rng = np.random.default_rng(0)
    scores = np.abs(lfilter([1.0], [1.0, -0.999], rng.normal(size=5_000)))[1_000:]
    worth = independent_rows(np.arange(4_000), scores)
    assert worth < 40
    calibration = Calibration(np.sort(scores))
    counted, least = widened(calibration, worth), widened(calibration, 60)
    assert np.array_equal(counted.scores, least.scores)
    assert np.array_equal(narrowed(counted.scores, worth), narrowed(least.scores, 60))


def test_equal_scores_are_independent() -> None:
    """If no score is above the others, nothing depends on the row before."""
    assert independent_rows(np.arange(100), np.zeros(100)) == 100


def test_p_values_of_dependent_rows_are_those_of_fewer_rows() -> None:
    """The largest score of 1,000 rows that are worth 80 has the p-value 1 in 81."""
    calibration = Calibration(np.sort(np.random.default_rng(0).exponential(size=N)))
    wide = widened(calibration, WORTH)
    middle, largest = calibration.scores[N // 2], calibration.scores[-1]
    assert wide.p_value(middle) == pytest.approx((1 + WORTH / 2) / (1 + WORTH), rel=0.01)
    assert wide.p_value(largest) == pytest.approx(1 / (1 + WORTH), rel=0.06)
    policy = {"fpr": 0.01}
    assert wide.threshold(policy).value > largest - 0.5 > calibration.threshold(policy).value
    assert widened(calibration, N) is widened(calibration, None) is calibration


def test_the_next_training_gets_the_scores_as_they_were() -> None:
    """A calibration that was widened is narrowed before new scores join it."""
    scores = np.sort(np.random.default_rng(0).exponential(size=N))
    again = narrowed(widened(Calibration(scores), WORTH).scores, WORTH)
    assert again[:-20] == pytest.approx(scores[:-20], abs=0.02)
    assert again == pytest.approx(scores, abs=0.3)
    assert narrowed(scores, None) is scores


def test_the_interval_of_the_rate_counts_independent_rows() -> None:
    """Few independent rows show the rate of false alarms less exactly."""
    calibration = Calibration(np.arange(float(N)))
    sure, unsure = (calibration.false_alarm_rate(N - 10.0, worth) for worth in (None, WORTH // 2))
    assert sure.rate == unsure.rate == 0.01
    assert unsure.high > 4 * sure.high
