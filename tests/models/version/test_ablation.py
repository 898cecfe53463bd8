"""Which features cause a score."""

import numpy as np
import pytest

from models import Config, Model, train
from models.config import SCORES
from models.parts.tied_gaussians import MahalanobisScore, TiedGaussians
from models.version.ablation import SUSPECTS, ablate, suspects

QUICK = Model(epochs=5)


def test_a_contribution_is_a_difference_of_distances() -> None:
    """For a Gaussian a contribution is the distance minus that of the other features."""
    covariance = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 4.0]])
    tied = TiedGaussians.with_ridge(np.ones(1), np.zeros((1, 3)), covariance)
    x = np.array([[3.0, -1.0, 2.0]], np.float32)
    ablation = ablate(x, np.array([[0, 1, 2]]), np.arange(3), tied.fill, MahalanobisScore(tied))
    whole = covariance + 0.01 * np.eye(3)
    for j in range(3):
        rest = [i for i in range(3) if i != j]
        others = whole[np.ix_(rest, rest)]
        alone = 0.5 * x[0, rest] @ np.linalg.solve(others, x[0, rest])
        np.testing.assert_allclose(
            ablation.falls[0, j], MahalanobisScore(tied)(x)[0] - alone, rtol=1e-4
        )
        mean = whole[j, rest] @ np.linalg.solve(others, x[0, rest])
        np.testing.assert_allclose(ablation.expected[0, j], mean, rtol=1e-4, atol=1e-6)


def test_of_many_features_the_most_suspicious_are_tried() -> None:
    """The features with the largest terms and the furthest ones are tried, none twice."""
    rng = np.random.default_rng(0)
    x, drawn = rng.normal(size=(5, 100)), rng.normal(size=(50, 100))
    shares = rng.random((5, 100))
    x[:, 7], shares[:, 7] = 40.0, 0.0
    shares[:, 9] = 2.0
    tried = suspects(x.astype(np.float32), shares, drawn.astype(np.float32), np.arange(100))
    assert tried.shape == (5, 2 * SUSPECTS)
    assert all({7, 9} <= set(row) and len(set(row)) == len(row) for row in tried.tolist())


def test_a_feature_at_its_largest_is_named_first() -> None:
    """The feature at its largest value is named first, even if the terms blame all features."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(3, 8))
    X = rng.normal(size=(700, 3)) @ causes + 0.3 * rng.normal(size=(700, 8))
    X = np.exp(X).astype(np.float32)
    version = train(None, X[:600], Config(score="elbo", model=Model(epochs=60)))
    broken, column = X[600:].copy(), rng.integers(8, size=100)
    broken[np.arange(100), column] = X[:600].max(axis=0)[column]
    alarms = version.is_anomaly(broken)
    named = np.array([int(row[0].feature) for row in version.explain(broken, 1)])
    assert alarms.mean() > 0.5
    assert (named == column)[alarms].mean() > 0.95


@pytest.mark.parametrize(
    "config",
    [
        *(
            pytest.param(
                Config(score=score, model=QUICK),
                marks=() if score in ("auto", "elbo") else pytest.mark.thorough,
                id=score,
            )
            for score in (*SCORES, "auto+regime")
        ),
        pytest.param(Config(kind="mahalanobis"), id="mahalanobis"),
    ],
)
def test_many_rows_at_once_are_explained_as_each_alone(config: Config) -> None:
    """Many rows in one call get the explanations that each gets alone: 409 rows of 40 features."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 40)).astype(np.float32)
    version = train(None, X, config)
    X[::7, 3] += 9.0
    rows = [0, 7, 500, 595]
    whole = version.explain(X, 2)
    for i, alone in zip(rows, version.explain(X[rows], 2), strict=True):
        assert [attribution.feature for attribution in whole[i]] == [
            attribution.feature for attribution in alone
        ]
        assert [attribution.expected for attribution in whole[i]] == pytest.approx(
            [attribution.expected for attribution in alone]
        )
    assert version.explain(X[:0], 2) == []
