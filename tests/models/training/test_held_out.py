"""Rows that repeat: which score calibrates, how many folds there are, what the record claims."""

import numpy as np
import pytest

from models import Config, Model, train
from models.parts.calibration import Calibration
from models.strategies.past import Past
from models.training.held_out import EqualRows, calibration_scores, disagreement
from models.training.plan import Outputs, plan

QUICK = Model(epochs=30, hidden=(16, 16))


def test_a_common_value_calibrates_with_its_serving_score() -> None:
    """A common value calibrates with the serving score, a copy with the larger of both scores."""
    x = np.float32([[0], [0], [0], [1], [1], *([k] for k in range(2, 97))])
    copies = EqualRows.find(x)
    assert copies.counts[:6].tolist() == [3, 3, 3, 2, 2, 1]
    assert copies.common[:6].tolist() == [True] * 5 + [False]
    assert copies.distinct == 100
    held_out, serving = np.full(100, 5.0), np.full(100, 2.0)
    serving[3:5] = 9.0
    few = copies._replace(rows=1_000)  # among so many rows no value is common
    assert few.distinct == 97
    assert calibration_scores(held_out, serving, copies)[:6].tolist() == [2, 2, 2, 9, 9, 5]
    assert calibration_scores(held_out, serving, few)[:6].tolist() == [5, 5, 5, 9, 9, 5]
    last = copies.at(np.array([99, 0]))
    assert calibration_scores(held_out[:2], serving[:2], last).tolist() == [5, 2]


def test_rows_with_a_tiny_jitter_are_near_copies_and_other_close_rows_are_not() -> None:
    """Rows repeated with a small noise count once; dense rows, levels and narrow regimes do not."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(200, 6)), 5, axis=0)
    x = (rows + 0.001 * rng.normal(size=rows.shape)).astype(np.float32)
    copies = EqualRows.find(x)
    assert copies.distinct == 200
    assert np.array_equal(copies.first, np.repeat(np.arange(0, 1_000, 5), 5))
    regimes = np.repeat(rng.normal(size=(10, 6)), 100, axis=0)
    narrow = regimes + 0.001 * rng.normal(size=regimes.shape)
    line, levels = rng.normal(size=(1_000, 1)), rng.poisson(3.0, (1_000, 1)) / 2.0
    for others in narrow, line, line**3, np.hstack([line, levels]), rng.normal(size=(1_000, 40)):
        assert EqualRows.find(others.astype(np.float32)).distinct == 1_000
    scores = calibration_scores(rng.exponential(size=1_000), np.zeros(1_000), copies)
    assert len(np.unique(scores)) == 200  # near copies have one score, so the interval counts 200


def test_other_rows_do_not_alarm_after_rows_with_a_tiny_jitter() -> None:
    """Rows that repeat with a jitter calibrate like rows that repeat: other rows seldom alarm."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(2, 6))

    def machine(n: int) -> np.ndarray:
        return rng.normal(size=(n, 2)) @ mix + 0.2 * rng.normal(size=(n, 6))

    sent = np.repeat(machine(200), 5, axis=0)
    sent = rng.permutation(sent + 0.001 * rng.normal(size=sent.shape)).astype(np.float32)
    version = train(None, sent, Config(model=QUICK))
    share = version.is_anomaly(machine(1_000).astype(np.float32)).mean()
    interval = version.calibration.false_alarm_rate(version.threshold)
    assert share <= min(0.06, interval.high + 0.02)


def test_rows_of_flags_that_are_equal_by_chance_are_no_copies() -> None:
    """Equal rows of flags are no copies, unless all come equally often or one column numbers them.

    A wrong flag in a row is then found: rare rows of flags do not calibrate as if they were new.
    """
    rng = np.random.default_rng(0)

    def flags(n: int) -> np.ndarray:
        x = (rng.random((n, 8)) < [0.5, 0.5, 0.9, 0.02, 0.98, 0.3, 0.7, 0.5]).astype(np.float32)
        x[:, 1] = x[:, 0]
        return x

    x = flags(1_000)
    rows = np.unique(x, axis=0)
    assert EqualRows.find(x).distinct == 1_000
    assert EqualRows.find(np.repeat(rows, 9, axis=0)).distinct == len(rows) > 50
    numbered = np.column_stack([x, np.unique(x, axis=0, return_inverse=True)[1]])
    assert EqualRows.find(numbered.astype(np.float32)).distinct < 1_000
    version = train(None, x, Config(model=QUICK))
    wrong, normal = flags(500), flags(2_000)
    wrong[:, 1] = 1.0 - wrong[:, 0]
    assert version.is_anomaly(wrong).mean() > 0.9
    assert version.is_anomaly(normal).mean() < 0.03


def test_rows_of_a_rare_state_do_not_calibrate_as_if_they_were_new() -> None:
    """Twelve products have five codes each; a code of another product is found.

    A product with 1 to 2 % of the rows decided the threshold by scores of networks that never saw
    it, and half of the wrong codes were not found.
    """
    rng = np.random.default_rng(0)
    table, share = rng.integers(6, size=(12, 5)), np.array([0.3, 0.2, *[0.06] * 8, 0.012, 0.008])
    x = table[rng.choice(12, 1_000, p=share)].astype(np.float32)
    copies = EqualRows.find(x)
    assert set(copies.counts[~copies.common].tolist()) == {1}
    version = train(None, x, Config(model=QUICK))
    wrong = x[:500].copy()
    wrong[:, 0] = (wrong[:, 0] + 1 + rng.integers(5, size=500)) % 6
    wrong = wrong[~(wrong[:, None] == table).all(axis=2).any(axis=1)]
    assert version.is_anomaly(wrong).mean() > 0.95
    assert version.is_anomaly(x).mean() < 0.03


def test_disagreement_of_networks_is_distinguished_from_chance() -> None:
    """Networks disagree if the serving one scores its own rows much higher than chance explains."""
    rng = np.random.default_rng(0)
    held_out = rng.normal(size=500)
    assert disagreement(held_out, held_out - 0.1) is None
    assert disagreement(held_out, rng.normal(size=500)) is None
    worse = held_out.copy()
    worse[::8] += 9.0
    assert disagreement(held_out, worse) == pytest.approx(0.13, abs=0.02)


def test_repeated_rows_have_the_folds_of_distinct_rows() -> None:
    """All copies of a row are in one fold, and the networks calibrate on every row."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(100, 3)).astype(np.float32), 50, axis=0)[rng.permutation(5_000)]
    folds = plan(None, Past(), x, Config(), Outputs("gaussian"), None).folds
    assert sorted(set(folds.tolist())) == [1, 2, 3, 4, 5]
    assert len(np.unique(np.column_stack([x, folds]), axis=0)) == 100


def test_repeated_scores_give_the_interval_of_distinct_scores() -> None:
    """Fifty copies of each of a hundred scores give the interval of a hundred scores."""
    scores = np.sort(np.repeat(np.arange(100.0), 50))
    repeated = Calibration(scores).false_alarm_rate(95.0)
    distinct = Calibration(np.arange(100.0)).false_alarm_rate(95.0)
    assert (repeated.rate, repeated.high) == (distinct.rate, distinct.high)
    assert distinct.low > repeated.low == 0.0
    levels = Calibration(np.repeat([0.0, 1.0, 2.0], [300, 190, 10]))
    assert levels.false_alarm_rate(2.0) == Calibration(np.arange(500.0)).false_alarm_rate(490.0)


@pytest.mark.parametrize("score", ["elbo", "auto"])
def test_common_levels_do_not_alarm(score: str) -> None:
    """With three levels in each of two columns, no common level alarms."""
    rng = np.random.default_rng(1)
    x = rng.choice(3, p=[0.9, 0.07, 0.03], size=(2_500, 2)).astype(np.float32)
    version = train(None, x[:500], Config(score=score, model=QUICK))
    claimed = version.calibration.false_alarm_rate(version.threshold)
    alarms = version.is_anomaly(x[500:])
    assert claimed.low - 1.0 / len(alarms) < alarms.mean() <= claimed.high
    common = np.float32([[0, 0], [0, 1], [1, 0], [0, 2], [2, 0]])
    assert not version.is_anomaly(common).any()
    assert version.is_anomaly(np.float32([[0, 7]])).all()
