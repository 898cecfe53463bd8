"""Richer scores equal plain sums on small cases; every score passes the common checks."""

import numpy as np
import pytest

from models import Config, Model, Version, train
from models.arrays import LOG_2PI, Array, Float64
from models.config import SCORES
from models.parts.mixture import Density, Mixture
from models.parts.network import Network, Shape
from models.scores.by_name import score_arrays, score_named, score_rows
from models.scores.elbo import Scorer
from models.scores.generated_bank import Bank
from models.scores.iwae import SAMPLES, ImportanceWeighted
from models.scores.just_in_time import LOCAL, JustInTime
from models.scores.neighbours import NEIGHBOURS, Neighbours


def network(likelihood: str = "gaussian") -> Network:
    """Return a network of 5 features, 2 latents and one hidden layer, with random weights."""
    shape = Shape(dimension=5, latent=2, hidden=(7,), likelihood=likelihood)
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.normal(size=size) / np.sqrt(size[0])).astype(np.float32)
        for name, size in shape.tensors().items()
    }
    return Network(shape, tensors)


@pytest.fixture
def mixture() -> Mixture:
    """Return two Gaussians, one of them not round."""
    factors = np.float32([[[1, 0], [0.5, 0.5]], [[2, 0], [0, 1]]])
    return Mixture(np.array([0.25, 0.75]), np.float32([[0, 0], [3, 1]]), factors)


def gaussian(z: Array, mean: Array, factor: Array) -> Float64:
    """Return the log density of N(mean, factor factor') at z (n, k)."""
    covariance = factor.astype(float) @ factor.T
    centred = z - mean
    squares = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    density: Float64 = -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])
    return density


def test_a_mixtures_density_is_the_sum_of_its_modes(mixture: Mixture) -> None:
    """The density is log sum_k w_k N(z; m_k, S_k), and a code belongs to the largest term."""
    z = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32) * 3
    logs = [
        np.log(w) + gaussian(z, mean, factor)
        for w, mean, factor in zip(mixture.weights, mixture.means, mixture.factors, strict=True)
    ]
    np.testing.assert_allclose(Density(mixture).log(z), np.logaddexp(*logs), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mixture.assign(z), np.argmax(logs, axis=0))


def test_a_mixture_moves_with_the_codes_of_its_vectors(mixture: Mixture) -> None:
    """If codes are rotated and stretched, so are the modes; their weights stay."""
    z = mixture.sample(20_000, np.random.default_rng(2))
    turn = np.float32([[0, 2], [-1, 0]])
    moved = mixture.moved(z, z @ turn)
    np.testing.assert_allclose(moved.weights, mixture.weights, atol=0.02)
    np.testing.assert_allclose(moved.means, mixture.means @ turn, atol=0.1)
    assert (moved.assign(z @ turn) == mixture.assign(z)).mean() > 0.98


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_fitted_equals_its_formula(likelihood: str, mixture: Mixture) -> None:
    """The score is -log p(x|m) - log p(m) - H(q), feature by feature, mode by mode."""
    made = network(likelihood)
    x = np.random.default_rng(3).uniform(size=(99, 5)).astype(np.float32)
    mean, log_variance = made.encode(x)
    entropy = 0.5 * (log_variance + 1 + LOG_2PI).sum(axis=1)
    expected = made.losses(x)[0].sum(axis=1) - Density(mixture).log(mean) - entropy
    np.testing.assert_allclose(Scorer("fitted", made, mixture)(x), expected, rtol=1e-4)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_iwae_finds_the_density_where_it_can_be_integrated(
    likelihood: str, mixture: Mixture
) -> None:
    """Each value is within half a nat of a sum over a fine grid of codes, on average within 0.2."""
    made = network(likelihood)
    x = np.random.default_rng(4).uniform(size=(40, 5)).astype(np.float32)
    axis = np.linspace(-12, 12, 241, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    decoded = made.decode(grid)
    if likelihood == "gaussian":
        residual = (x[:, None] - decoded) / made.noise_deviation()
        constant = np.log(made.noise_deviation()).sum() + 2.5 * LOG_2PI
        log_likelihood = -0.5 * np.square(residual).sum(axis=2) - constant
    else:
        log_likelihood = (x[:, None] * np.log(decoded) + (1 - x[:, None]) * np.log1p(-decoded)).sum(
            axis=2
        )
    terms = log_likelihood + Density(mixture).log(grid)
    exact = -np.logaddexp.reduce(terms, axis=1) - 2 * np.log(axis[1] - axis[0])
    score = ImportanceWeighted(made, mixture)(x)
    assert SAMPLES == 32
    assert abs(score - exact).max() < 0.5  # the luck of the draws
    assert abs((score - exact).mean()) < 0.2


def test_neighbours_are_found_and_measured_exactly() -> None:
    """Neighbours are exact also far from the origin, where squared distances lose digits."""
    rng = np.random.default_rng(5)
    vectors = (1000 + rng.normal(size=(300, 3))).astype(np.float32)
    x = (1000 + rng.normal(size=(40, 3))).astype(np.float32)
    distances = np.linalg.norm(x[:, None].astype(float) - vectors, axis=2)
    rows, measured = Bank(vectors).neighbours(x, NEIGHBOURS)
    np.testing.assert_allclose(measured, np.sort(distances, axis=1)[:, :NEIGHBOURS], rtol=1e-4)
    np.testing.assert_array_equal(rows[:, 0], distances.argmin(axis=1))


def test_the_score_neighbours_is_the_tenth_distance() -> None:
    """The score is the tenth distance to the decoded codes; it names the feature that is off."""
    made, rng = network(), np.random.default_rng(6)
    codes = rng.normal(size=(200, 2)).astype(np.float32)
    x = made.decode(codes[:20]) + np.float32([0, 0, 9, 0, 0])
    distances = np.sort(np.linalg.norm(x[:, None] - made.decode(codes), axis=2), axis=1)
    score = Neighbours(made, codes)
    np.testing.assert_allclose(score(x), distances[:, NEIGHBOURS - 1], rtol=1e-4)
    shares, expected = score.explain(x)
    assert (shares.argmax(axis=1) == 2).all()
    np.testing.assert_allclose(np.square(x - expected), shares, rtol=1e-4, atol=1e-4)


def test_jit_is_the_local_mahalanobis_distance() -> None:
    """The score is l r' (C'C + l I)^-1 r, solved in d dimensions instead of 30."""
    made, rng = network(), np.random.default_rng(7)
    codes = rng.normal(size=(200, 2)).astype(np.float32)
    x = rng.normal(size=(10, 5)).astype(np.float32)
    bank = made.decode(codes).astype(float)
    expected = []
    for row in x:
        near = bank[np.argsort(np.linalg.norm(row - bank, axis=1))[:LOCAL]]
        covariance = np.cov(near, rowvar=False, bias=True)
        ridge = np.trace(covariance) / LOCAL
        r = row - near.mean(axis=0)
        expected.append(ridge * r @ np.linalg.solve(covariance + ridge * np.eye(5), r))
    np.testing.assert_allclose(JustInTime(made, codes)(x), expected, rtol=1e-3)


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in {"auto", "neighbours"} else pytest.param(kind, marks=pytest.mark.thorough)
        for kind in SCORES
        if kind != "elbo"
    ],
)
def test_every_score_works_over_two_generations(kind: str, blob: Array) -> None:
    """After two generations, anomalies alarm, normals do not, and the artifact scores the same."""
    config = Config(score=kind, model=Model(epochs=60))
    first = train(None, blob, config)
    other = blob + 10 * blob.std(axis=0)
    second = train(first, other, config)
    assert set(second.scoring) == set(score_arrays(kind, second.network, second.latents, 0))
    loaded = Version.from_bytes(second.to_bytes())
    np.testing.assert_array_equal(loaded.score(blob), second.score(blob))
    wrong = blob[:50].copy()
    wrong[:, 3] += 30 * blob[:, 3].std()
    assert second.is_anomaly(wrong).mean() > 0.9
    assert all(row[0].feature == "3" for row in second.explain(wrong[:5], 1))
    assert second.is_anomaly(blob).mean() < 0.05
    assert second.is_anomaly(other).mean() < 0.05
    one_by_one = np.concatenate([second.judge(row[None]).scores for row in blob[:20]])
    np.testing.assert_allclose(one_by_one, second.score(blob[:20]), rtol=1e-4, atol=1e-4)


def test_a_score_can_be_changed_between_versions(first: Version, blob: Array) -> None:
    """The champion is compared under the new score, whatever score it serves with."""
    config = Config(features=tuple("abcdef"), score="neighbours")
    second = train(first, blob, config)
    rates = second.lineage.evidence.old
    assert rates.more < 0.05
    assert second.is_anomaly(blob).mean() < 0.05
    same = score_named("neighbours", second.network, second.latents, second.scoring)
    np.testing.assert_array_equal(
        score_rows(same, second.scaler.transform(blob)), second.score(blob)
    )
