"""The mixture that replay draws from, fitted to codes."""

import tracemalloc

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from models.parts.mixture import MOST_STEPS, RIDGE, TOLERANCE, Density, Mixture, spread_seeds


def test_the_mixture_equals_that_of_scikit_learn() -> None:
    """For codes of four regimes the density equals scikit-learn's from the same seeds."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(4, 3)) * 6
    codes = middles[rng.integers(4, size=4_000)] + rng.normal(size=(4_000, 3)) * [0.3, 1.0, 2.0]
    z, others = np.split(codes.astype(np.float32), 2)
    mixture = Mixture.fit(z, seed=0)
    n = len(mixture.weights)
    begun = spread_seeds(z.astype(float), n, np.random.default_rng([0, 14]))
    theirs = GaussianMixture(
        n, reg_covar=RIDGE, max_iter=MOST_STEPS, tol=TOLERANCE, weights_init=np.full(n, 1 / n),
        means_init=begun, precisions_init=np.repeat([np.eye(3) / RIDGE], n, axis=0),
    ).fit(z.astype(float))  # fmt: skip
    ours = Density(mixture).log(others)
    np.testing.assert_allclose(ours, theirs.score_samples(others.astype(float)), atol=0.01)


@pytest.mark.parametrize("z", [np.zeros((500, 3)), np.repeat([[0, 0], [9, 9]], 300, axis=0)])
def test_equal_codes_give_a_usable_mixture(z: np.ndarray) -> None:
    """Draws lie where the codes are."""
    mixture = Mixture.fit(z.astype(np.float32), seed=0)
    drawn = mixture.sample(400, np.random.default_rng(0))
    nearest = np.abs(drawn[:, None] - np.unique(z, axis=0)).max(axis=2).min(axis=1)
    assert nearest.max() < 0.2


def test_draws_of_many_latents_take_little_memory() -> None:
    """Codes are drawn without a copy of a covariance for each of them."""
    mixture = Mixture.prior(256)
    tracemalloc.start()
    try:
        drawn = mixture.sample(4_000, np.random.default_rng(0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn.std() == pytest.approx(1.0, abs=0.01)
    assert peak < 64 * 2**20


def test_the_same_seed_gives_the_same_mixture() -> None:
    """The same seed gives the same mixture, bit for bit."""
    z = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    first, other = (Mixture.fit(z, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.factors, other.factors)


def test_initial_centres_fall_into_different_groups() -> None:
    """Ten seeds fall into ten groups, one each."""
    rng = np.random.default_rng(0)
    middles = np.stack([np.arange(10) * 9.0, np.zeros(10)], axis=1)
    z = np.repeat(middles, 50, axis=0) + rng.normal(size=(500, 2)) * 0.5
    seeds = spread_seeds(z, 10, rng)
    assert sorted((seeds[:, 0] / 9.0).round().tolist()) == list(range(10))
