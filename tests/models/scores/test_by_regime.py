"""Calibration inside each regime, on cases that are counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Config, ConfigError, Version, train
from models.arrays import Array
from models.parts.calibration import Calibration
from models.scores.by_regime import (
    FEWEST,
    Surprise,
    calibrations,
    carried_tables,
    from_tensors,
    joined_tables,
    pooled_calibration,
    tables_of,
    to_tensors,
)


def test_the_surprise_of_a_calibration_score_is_its_rank() -> None:
    """The i-th largest of n scores has the surprise -log(i / (n + 1)); it rises in between."""
    calibration = Calibration(np.arange(99.0))
    surprises = Surprise(calibration)(np.array([98.0, 89.0, 0.0]))
    np.testing.assert_allclose(surprises, -np.log([0.01, 0.10, 0.99]))
    rising = Surprise(calibration)(np.linspace(0, 500, 9_999))
    assert (np.diff(rising) > 0).all()
    sigma = calibration.sigma
    beyond = Surprise(calibration)(np.array([98.0 + sigma]))
    assert beyond[0] == pytest.approx(-np.log(0.01) - calibration.log_survival_of_one(sigma))


def test_the_p_value_of_equal_scores_counts_all_of_them() -> None:
    """Of nine scores five are equal and largest: p is 0.5 there, and 0.1 above."""
    surprises = Surprise(Calibration(np.array([1.0, 2, 3, 4, 5, 5, 5, 5, 5])))(np.array([5.0, 5.1]))
    assert surprises[0] == pytest.approx(-np.log(0.5))
    assert surprises[1] >= -np.log(0.1)


@given(st.lists(st.integers(-3, 3), min_size=12), st.floats(-10, 1e30))
def test_a_score_alone_is_as_surprising_as_among_others(table: list[int], score: float) -> None:
    """A score alone has the same surprise as among others, also at ties and in the tail."""
    surprise = Surprise(Calibration(np.sort(np.array(table, np.float64))))
    scores = np.array([-1e30, *range(-3, 5), score])
    surprises = [surprise.of_one(value) for value in scores.tolist()]
    np.testing.assert_allclose(surprises, surprise(scores), rtol=1e-12, atol=1e-12)


def test_the_rate_holds_inside_every_regime() -> None:
    """Two regimes with very different scores have one threshold, and each a rate of 1 %."""
    rng = np.random.default_rng(0)
    narrow, wide = np.sort(rng.gamma(2, 1, 2_000)), np.sort(rng.gamma(2, 100, 1_000))
    threshold = pooled_calibration([narrow, wide]).threshold({"fpr": 0.01}).value
    for calibration, scale in zip(calibrations([narrow, wide]), (1, 100), strict=True):
        alarms = Surprise(calibration)(rng.gamma(2, scale, 50_000)) >= threshold
        assert 0.006 < alarms.mean() < 0.014


def test_a_regime_of_equal_scores_changes_no_other_rate() -> None:
    """Beside a regime of equal scores another regime keeps its rate."""
    rng = np.random.default_rng(0)
    scores = np.sort(rng.gamma(2, 1, 2_000))
    threshold = pooled_calibration([np.ones(2_000), scores]).threshold({"fpr": 0.01}).value
    alarms = Surprise(Calibration(scores))(rng.gamma(2, 1, 50_000)) >= threshold
    assert 0.006 < alarms.mean() < 0.014


def test_a_regime_of_few_scores_uses_the_scores_of_all() -> None:
    """A regime with too few scores uses the calibration of all regimes."""
    few, many = np.arange(FEWEST - 1.0), np.arange(500.0)
    small, large = calibrations([few, many])
    assert small.n == len(few) + len(many)
    assert large.n == len(many)


def test_calibration_moves_regime_by_regime() -> None:
    """If generated scores of a regime rose by one, its calibration rises by one."""
    tables = {1: np.arange(100.0), 2: np.arange(100.0) + 1000, 3: np.arange(5.0)}
    before = np.concatenate([np.linspace(0, 99, 500), np.linspace(1000, 1099, 500)])
    after = before + np.repeat([1.0, -7.0], 500)
    numbers = np.repeat([1, 2], 500)
    moved = carried_tables(tables, numbers, numbers, before, after)
    np.testing.assert_allclose(moved[1], tables[1] + 1)
    np.testing.assert_allclose(moved[2], tables[2] - 7)
    assert set(moved) == {1, 2}
    assert set(carried_tables(None, numbers, numbers, before, after)) == {1, 2}


def test_calibration_scores_move_to_another_regime_like_vectors() -> None:
    """If vectors that score above 80 move to another regime, such calibration scores move, too."""
    before = np.linspace(0, 100, 1_001)
    was = np.ones(1_001, np.int64)
    moved = carried_tables(
        {1: np.arange(100.0)}, was, np.where(before > 80, 3, 1), before, before - 2
    )
    assert set(moved) == {1, 3}
    np.testing.assert_allclose(moved[1], np.arange(len(moved[1])) - 2, atol=1)
    np.testing.assert_allclose(moved[3], np.arange(100 - len(moved[3]), 100) - 2, atol=1)
    assert len(moved[1]) == pytest.approx(80, abs=2)
    assert len(moved[1]) + len(moved[3]) == pytest.approx(100, abs=1)


def test_calibration_tables_are_joined_and_read_back() -> None:
    """Old and new scores of a regime are joined, and are read back from their tensors."""
    new = tables_of(np.array([3.0, 1.0, 9.0]), np.array([1, 1, 4]))
    tables = joined_tables({1: np.array([2.0])}, new, [1, 4, 6])
    assert [table.tolist() for table in tables] == [[1, 2, 3], [9], []]
    again = from_tensors(to_tensors(tables))
    assert again is not None
    assert [table.tolist() for table in again] == [table.tolist() for table in tables]


def test_a_relative_score_is_calibrated_inside_each_regime(digits: dict[int, Array]) -> None:
    """For two digits, one after another, the score is -log p, carried over and saved."""
    config = Config(score="elbo+regime", threshold={"fpr": 0.05})
    # In the file's order other people wrote the last digits than the first.
    rng = np.random.default_rng(0)
    digits = {digit: rng.permutation(images) for digit, images in digits.items()}
    zeros, ones = digits[0][:120], digits[1][:120]
    second = train(train(None, zeros, config), ones, config)
    tables = from_tensors(second.scoring)
    assert tables is not None
    assert sum(len(table) for table in tables) == 240
    assert abs(second.threshold + np.log(0.05)) < 0.2
    scores = second.score(digits[1])
    plain = second.with_config(Config(score="elbo")).score(digits[1])
    mine = second.nearest_regime(digits[1]) == 1
    for regime in (mine, ~mine):
        order = np.argsort(plain[regime], kind="stable")
        assert (np.diff(scores[regime][order]) >= 0).all()
    assert second.is_anomaly(digits[0][120:]).mean() < 0.12
    assert second.is_anomaly(digits[1][120:]).mean() < 0.12
    assert second.is_anomaly(digits[7]).mean() > 0.8
    loaded = Version.from_bytes(second.to_bytes())
    np.testing.assert_array_equal(loaded.score(digits[7]), second.score(digits[7]))
    plain_again = train(second, zeros, Config())
    assert plain_again.is_anomaly(digits[1][120:]).mean() < 0.1


def test_only_the_regime_can_be_added_to_a_score() -> None:
    """Only `+regime` can be added to a score, and the message says so."""
    assert Config(score="neighbours+regime").score == "neighbours+regime"
    for wrong in ("elbo+elbo", "elbo+", "+regime", "regime"):
        with pytest.raises(ConfigError, match="score"):
            Config(score=wrong)


@pytest.mark.thorough
def test_a_score_by_regime_begins_with_the_plain_calibration() -> None:
    """A score that becomes relative keeps its rate, because its calibration is carried over."""
    rng = np.random.default_rng(0)
    first = train(None, rng.normal(size=(400, 4)), Config(score="neighbours"))
    away = rng.normal(size=(400, 4)) * [3, 0.3, 1, 1] + [12, -12, 0, 0]
    second = train(first, away, Config(score="neighbours+regime"))
    assert second.is_anomaly(rng.normal(size=(4_000, 4))).mean() < 0.03
