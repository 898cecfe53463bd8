import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models import Config, ConfigError, VectorError, Version, train
from models.arrays import Array
from models.parts.tied_gaussians import RIDGE, MahalanobisScore, TiedGaussians

KIND = Config(kind="mahalanobis")


def pooled(parts: list[Array]) -> tuple[Array, Array]:
    """Return the means of the parts (n_i, d), and the covariance within them."""
    means = np.stack([part.mean(axis=0, dtype=np.float64) for part in parts])
    centred = np.concatenate([part - mean for part, mean in zip(parts, means, strict=True)])
    return means, centred.T @ centred / len(centred)


def test_the_score_equals_the_formula_of_the_paper() -> None:
    """The score is half of min_c (f - mu_c)' Sigma^-1 (f - mu_c); its shares sum to it."""
    covariance = np.array([[2.0, 0.6], [0.6, 1.0]])
    means = np.array([[0.0, 0.0], [5.0, -5.0]])
    tied = TiedGaussians.with_ridge(np.array([3.0, 1.0]), means, covariance)
    x = np.float32([[1.0, 2.0], [4.0, -4.0]])
    inverse = np.linalg.inv(covariance + RIDGE * np.eye(2))
    exact = [min((f - mu) @ inverse @ (f - mu) for mu in means) / 2 for f in x]
    np.testing.assert_allclose(MahalanobisScore(tied)(x), exact, rtol=1e-5)
    shares, nearest = MahalanobisScore(tied).explain(x)
    np.testing.assert_allclose(shares.sum(axis=1), exact, rtol=1e-5)
    np.testing.assert_array_equal(nearest, means.astype(np.float32))
    # A f - B + log n_c, term by term.
    A, B = means @ inverse, 0.5 * np.einsum("ci,ij,cj->c", means, inverse, means)
    decision = x @ A.T - B + np.log([0.75, 0.25])
    densities = tied.log_densities(x)
    np.testing.assert_allclose(np.diff(densities), np.diff(decision), rtol=1e-5)
    np.testing.assert_allclose(tied.covariance(), covariance, atol=1e-6)


def test_a_slot_of_a_category_weighs_as_if_it_were_scaled() -> None:
    """A word is as far out as it is rare, and the slots' covariance is read back exactly."""
    frequencies = np.array([0.01, 0.19, 0.8])
    covariance = np.zeros((4, 4))
    covariance[0, 0] = 1.0
    covariance[1:, 1:] = np.diag(frequencies) - np.outer(frequencies, frequencies)
    means = np.concatenate([[0.0], frequencies])[None]
    tied = TiedGaussians.with_ridge(np.ones(1), means, covariance, slots=3)
    np.testing.assert_allclose(tied.covariance(slots=3), covariance, atol=1e-6)
    words = np.concatenate([np.zeros((3, 1)), np.eye(3)], axis=1).astype(np.float32)
    squares = 2.0 * MahalanobisScore(tied)(words)
    np.testing.assert_allclose(squares, 1.0 / frequencies - 1.0, rtol=0.15)  # Pearson's chi square
    unknown = np.float32([[0.0, 0.0, 0.0, 0.0]])
    assert np.isfinite(MahalanobisScore(tied)(unknown)).all()


def test_regimes_learned_in_turn_equal_regimes_learned_at_once(digits: dict[int, Array]) -> None:
    """Regimes learned one after another have the means and covariance of all at once."""
    parts = [digits[1][:150], digits[2][:100], digits[3][:50]]
    version = None
    for part in parts:
        version = train(version, part, KIND)
    means, within = pooled([version.scaler.transform(part) for part in parts])
    np.testing.assert_allclose(version.latents.means, means, atol=1e-4)
    np.testing.assert_allclose(version.latents.covariance(), within, atol=1e-4)
    np.testing.assert_allclose(version.latents.weights, [1 / 2, 1 / 3, 1 / 6])


def test_the_weights_of_the_paper_can_be_configured(blob: Array) -> None:
    """The paper's weights are C / (C + 1) for Sigma and 1 / (C + 1) for Sigma_new."""
    v1 = train(None, blob, KIND)
    far = blob[:100] + 20 * blob.std(axis=0)
    v2 = train(v1, far * 1.0, KIND, weights="equal")
    x = v2.scaler.transform(far).astype(np.float64)
    x -= x.mean(axis=0)
    expected = v1.latents.covariance() / 2 + x.T @ x / len(x) / 2
    np.testing.assert_allclose(v2.latents.covariance(), expected, atol=1e-4)


def test_more_of_a_known_regime_makes_no_new_one(blob: Array) -> None:
    """Means with one mode between them are one regime, with pooled mean and covariance."""
    version = train(train(None, blob[:300], KIND), blob[300:], KIND)
    _, within = pooled([version.scaler.transform(blob)])
    assert len(version.latents.weights) == 1
    np.testing.assert_allclose(version.latents.covariance(), within, atol=1e-4)


def test_nine_digits_are_learned_in_milliseconds(digits: dict[int, Array]) -> None:
    """Zero is found among nine digits, which alarm at about the asked rate, the old ones too."""
    version, seconds = None, []
    for digit in range(1, 10):
        start = time.perf_counter()
        version = train(version, digits[digit][:120], KIND)
        seconds.append(time.perf_counter() - start)
    alarm_rates = [version.is_anomaly(digits[digit][120:]).mean() for digit in range(1, 10)]
    normal = np.concatenate([version.score(digits[digit][120:]) for digit in range(1, 10)])
    zero = version.score(digits[0])
    truth = np.repeat([0, 1], [len(normal), len(zero)])
    assert roc_auc_score(truth, np.concatenate([normal, zero])) > 0.9
    assert np.mean(alarm_rates) < 0.03
    assert np.median(seconds) < 10
    assert len(version.latents.weights) == 9


def test_a_version_of_this_kind_is_an_artifact_like_any_other(blob: Array) -> None:
    """A version of this kind is stored, loaded, explained and drawn from; its draws are normal."""
    version = train(None, blob, Config(kind="mahalanobis", features=tuple("abcdef")))
    loaded = Version.from_bytes(version.to_bytes())
    assert loaded.to_bytes() == version.to_bytes()
    np.testing.assert_array_equal(loaded.score(blob), version.score(blob))
    assert loaded.is_anomaly(loaded.sample(1000, seed=1)).mean() < 0.05
    broken = blob[:5].copy()
    broken[:, 3] += 30 * blob[:, 3].std()
    assert [row[0].feature for row in loaded.explain(broken, 2)] == ["d"] * 5
    np.testing.assert_allclose(loaded.sample(4000, 0).mean(0), blob.mean(0), atol=0.3 * blob.std())


def test_named_classes_are_distinguished(digits: dict[int, Array]) -> None:
    """Classes that are added later are classified as well as the first ones."""
    version = None
    for labels in (range(5), range(5, 10)):
        X = np.concatenate([digits[digit][:120] for digit in labels])
        y = np.repeat(list(labels), 120)
        version = train(version, X, KIND, labels=y)
    right = [(version.classify(digits[d][120:]) == d).mean() for d in range(10)]
    assert np.mean(right) > 0.9
    with pytest.raises(VectorError, match="labels"):
        train(None, digits[1], KIND).classify(digits[1])
    with pytest.raises(VectorError, match="labels"):
        train(None, digits[1], KIND, labels=np.ones(3, int))


@pytest.fixture(
    scope="module",
    params=[
        ("vae", "mahalanobis"),
        pytest.param(("mahalanobis", "vae"), marks=pytest.mark.thorough),
    ],
)
def changed(request: pytest.FixtureRequest, digits: dict[int, Array]) -> Version:
    """Return a version that learned a second digit as another kind than the first."""
    first, second = (Config(kind=kind) for kind in request.param)
    return train(train(None, digits[1][:120], first), digits[2][:120], second)


def test_a_detector_may_change_its_kind(digits: dict[int, Array], changed: Version) -> None:
    """The draws of one kind are the past of the other."""
    assert changed.is_anomaly(digits[1][120:]).mean() < 0.2
    assert np.median(changed.p_values(digits[0])) < 0.1
    assert set(changed.lineage.evidence.old.to_dict()) == {"champion", "candidate"}


def test_regimes_are_numbered_with_sizes_and_curves(digits: dict[int, Array]) -> None:
    """Regimes are numbered in the order in which they came, with sizes, forgetting and curves."""
    version = None
    for digit in (1, 2, 1):
        version = train(version, digits[digit][:120], KIND)
    assert [(regime.number, regime.size, regime.seen) for regime in version.regimes] == [
        (1, 240, 3),
        (2, 120, 2),
    ]
    for number, digit in enumerate((1, 2), 1):
        assert (version.nearest_regime(digits[digit][:120]) == number).mean() > 0.95
    about = version.regimes[1].about
    assert about.replayed > 1000
    assert abs(about.alarms.more) < 0.1
    assert about.curve.scale >= 0
    np.testing.assert_allclose(
        version.regimes[1].typical, digits[2][:120].mean(axis=0), atol=0.3 * digits[2].std()
    )
    named = train(version, digits[3][:120], KIND, labels=np.repeat([3, 4], [100, 20]))
    assert [regime.size for regime in named.regimes] == [240, 120, 100, 20]
    assert named.regimes[2].about.alarms is None


def test_regimes_stay_after_a_change_of_kind(changed: Version) -> None:
    """After a change of kind every learned vector belongs to a regime."""
    assert sum(regime.size for regime in changed.regimes) == pytest.approx(240, abs=2)
    assert {regime.seen for regime in changed.regimes} == {1, 2}


def test_options_of_another_kind_are_refused() -> None:
    """A score or strategy of another kind is refused, because it would be ignored."""
    with pytest.raises(ConfigError, match="mahalanobis"):
        Config(kind="mahalanobis", strategy="joint")
