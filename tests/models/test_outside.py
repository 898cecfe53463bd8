"""Values outside everything that was learned, and how they are learned."""

from dataclasses import replace

import numpy as np
import pytest

from models import Config, Model, Version, train
from models.arrays import Array
from models.config import SCORES
from models.decisions.gate import gate
from models.parts.statistics import auroc

QUICK = Model(epochs=40)
FACTORS = (1.5, 2.0, 4.0, 16.0, 1e3, 1e6)


@pytest.fixture(scope="module", params=["bernoulli", "gaussian", "mahalanobis"])
def version(request: pytest.FixtureRequest, digits: dict[int, Array]) -> Version:
    """Return a version that learned zeros and ones, for each likelihood and kind."""
    learned = np.concatenate([digits[0][:100], digits[1][:100]])
    if request.param == "mahalanobis":
        return train(None, learned, Config(kind="mahalanobis"))
    model = replace(QUICK, likelihood=request.param)
    return train(None, learned, Config(model=model))


@pytest.fixture(scope="module")
def scored(version: Version) -> list[Version]:
    """Return the version with each score of its kind."""
    if version.config.kind == "mahalanobis":
        return [version]
    scores = [*SCORES, "elbo+regime"]
    return [version.with_config(replace(version.config, score=score)) for score in scores]


def test_the_brighter_a_vector_the_higher_its_score(
    scored: list[Version], digits: dict[int, Array]
) -> None:
    """Digits scaled by 1.5 to a million score higher the larger the factor is."""
    normals = np.concatenate([digits[0][100:], digits[1][100:]])
    for version in scored:
        levels = [version.score(normals * np.float32(factor)) for factor in (1.0, *FACTORS)]
        medians = [float(np.median(level)) for level in levels]
        assert medians == sorted(set(medians)), version.config.score
        assert min(auroc(levels[0], level) for level in levels[2:]) > 0.9, version.config.score


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_pixel_further_out_of_range_scores_higher(
    scored: list[Version], digits: dict[int, Array], sign: float
) -> None:
    """The further one pixel is out of range, the higher is the score."""
    learned, normals = (np.concatenate([digits[i][part] for i in (0, 1)])
                        for part in (slice(100), slice(100, None)))  # fmt: skip
    # A pixel that was constant, and moves, scores so high that float32 hides what another one adds.
    normals = normals[(normals[:, np.ptp(learned, axis=0) == 0.0] == 0.0).all(axis=1)]
    assert len(normals) > 100
    for version in scored:
        before = version.score(normals)
        for distance in (64.0, 320.0, 1e3, 1e5, 1e7):
            broken = normals.copy()
            broken[:, 27] = sign * distance
            after = version.score(broken)
            assert (after > before).all(), (version.config.score, distance)
            before = after


@pytest.mark.parametrize("factor", [1.2, pytest.param(2.0, marks=pytest.mark.thorough), 16.0])
def test_brighter_pictures_are_learned(digits: dict[int, Array], factor: float) -> None:
    """Brighter pictures pass the gate when learned; even brighter ones still alarm."""
    config = Config(score="elbo", model=replace(QUICK, likelihood="bernoulli"))
    zeros, brighter = digits[0], digits[0] * np.float32(factor)
    first = train(None, zeros[:100], config)
    second = train(first, brighter[:100], config)
    assert gate(second.lineage.evidence).passed
    assert second.threshold < 10 * first.threshold
    assert second.is_anomaly(zeros[100:]).mean() < 0.1
    assert second.is_anomaly(brighter[100:]).mean() < 0.1
    assert second.is_anomaly(2.0 * brighter[100:]).mean() > 0.9
    assert second.is_anomaly(digits[1]).mean() > 0.5


def test_brightness_that_was_learned_is_kept_in_the_artifact(digits: dict[int, Array]) -> None:
    """A version that is read back scores brighter pictures like the original."""
    config = Config(model=replace(QUICK, likelihood="bernoulli", epochs=2))
    second = train(train(None, digits[0], config), 3.0 * digits[0], config)
    assert second.network.shape.high == pytest.approx(3.0)
    again = Version.from_bytes(second.to_bytes())
    np.testing.assert_array_equal(again.score(2.5 * digits[0]), second.score(2.5 * digits[0]))


@pytest.mark.parametrize("kind", ["ratings", "percentages"])
def test_ratings_and_percentages_are_no_pictures(kind: str) -> None:
    """Columns of ratings and percentages have no order, so `auto` chooses a Gaussian likelihood."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 25)) + rng.normal(size=(300, 25))
    if kind == "ratings":
        X = np.where(rng.random(X.shape) < 0.4, 0.0, np.clip(np.round(3 + X), 1, 5))
    else:
        X = np.clip(20 + 25 * X, 0, 100)
    version = train(None, X, Config(model=Model(epochs=1)))
    assert version.network.shape.likelihood == "gaussian"
