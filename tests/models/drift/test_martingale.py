import math

import numpy as np
import pytest

from models.drift.martingale import Martingale, Multiset, bets


def test_bets_are_fair():
    """Every bet is non-negative and integrates to one, so capital cannot grow by luck."""
    p = (np.arange(1_000_000) + 0.5) / 1_000_000
    stakes = bets(p)
    assert stakes.min() >= 0
    # The strongest power has a tenth of its mass below 1e-5: the midpoint rule comes this near.
    np.testing.assert_allclose(stakes.mean(axis=0), 1.0, atol=0.05)
    assert (stakes.mean(axis=0) <= 1 + 1e-9).all()


def test_p_values_are_ranks_among_earlier_scores():
    """A smoothed online p-value ranks a score among the calibration and earlier live scores."""
    rng = np.random.default_rng(0)
    calibration, live = rng.integers(0, 9, 40) / 4.0, rng.integers(0, 9, 30) / 4.0
    u = 1 - rng.random(30)
    seen, expected = list(calibration), []
    for score, tie in zip(live, u, strict=True):
        above = sum(other > score for other in seen)
        tied = sum(other == score for other in seen)
        expected.append((above + tie * (tied + 1)) / (len(seen) + 1))
        seen.append(score)
    bag = Multiset.of(calibration)
    np.testing.assert_allclose(
        np.concatenate([bag.ranks(live[:17], u[:17]), bag.ranks(live[17:], u[17:])]), expected
    )
    assert len(bag) == 70


def test_p_values_are_uniform_without_drift():
    """Online p-values of exchangeable scores are uniform, ties and a small calibration included."""
    pooled = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        bag = Multiset.of(np.round(rng.normal(size=50), 1))
        pooled.append(bag.ranks(np.round(rng.normal(size=50), 1), 1 - rng.random(50)))
    counts, _ = np.histogram(np.concatenate(pooled), bins=10, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # chi squared, 9 degrees, chance 0.001


@pytest.mark.parametrize(("shift", "scale"), [(2.0, 1.0), (-2.0, 1.0), (0.0, 3.0), (0.0, 0.3)])
def test_a_change_of_any_kind_is_found(shift: float, scale: float):
    """Scores that become higher, lower, more or less spread make the capital grow past 100."""
    rng = np.random.default_rng(5)
    martingale = Martingale(rng.normal(size=500), np.random.default_rng(6))
    assert martingale.update(rng.normal(size=2000)).max() < math.log(100)
    assert martingale.update(rng.normal(shift, scale, size=300)).max() > math.log(100)


@pytest.mark.parametrize(
    ("streams", "most"), [(50, 3), pytest.param(300, 8, marks=pytest.mark.thorough)]
)
def test_false_alarms_stay_within_the_bound(streams: int, most: int) -> None:
    """Without drift at most one stream in a hundred ever crosses 100, give or take by chance."""
    crossed = 0
    for seed in range(streams):
        rng = np.random.default_rng([seed, 1])
        martingale = Martingale(rng.normal(size=200), np.random.default_rng([seed, 2]))
        crossed += martingale.update(rng.normal(size=800)).max() >= math.log(100)
    assert crossed <= most  # at exactly 1 % more cross with a chance of 0.002 and 0.004


def test_a_restored_martingale_continues_bit_for_bit():
    """A martingale restored from its state continues bit for bit, with its tie breaker."""
    rng = np.random.default_rng(1)
    whole = Martingale(rng.normal(size=100), np.random.default_rng(2))
    scores = rng.normal(size=600)
    whole.update(scores[:250])
    rest = Martingale.from_dict(whole.to_dict())
    np.testing.assert_array_equal(whole.update(scores[250:]), rest.update(scores[250:]))


def test_memory_is_bounded():
    """The stored scores are rounded, so a long stream needs bounded memory."""
    rng = np.random.default_rng(3)
    bag = Multiset.of(rng.normal(100, 20, size=500))
    for _ in range(100):
        bag.ranks(rng.normal(100, 20, size=500), 1 - rng.random(500))
    assert len(bag) == 50_500
    assert len(bag.values) < 2500
