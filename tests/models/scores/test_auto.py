"""The default score: its views, its parts, and its version."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from models import Config, Model, Version, train
from models.arrays import LOG_2PI, Array
from models.errors import ArtifactError
from models.parts.data_density import DataDensity
from models.parts.marginals import KNOTS, REACH, Marginals
from models.parts.mixture import Density
from models.parts.statistics import auroc
from models.parts.views import Views
from models.scores import auto, by_name
from models.scores.auto import ALWAYS, EARLIER_PICTURES, PICTURES, Auto, needs
from models.scores.by_name import with_less_noise
from models.version import old_normals


@pytest.fixture(scope="module")
def skewed() -> Array:
    """Return 1,200 rows: log-normal, a mixture of two modes, whole numbers, a constant."""
    rng = np.random.default_rng(0)
    n = 1200
    columns = [
        rng.lognormal(sigma=2.0, size=n),
        np.where(rng.random(n) < 0.5, -4.0, 4.0) + 0.3 * rng.normal(size=n),
        rng.poisson(0.7, size=n),
        np.full(n, 7.0),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def version(skewed: Array) -> Version:
    """Return a version with the default score that learned the skewed rows."""
    return train(None, skewed, Config(score="auto"))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [5, 64])
def test_a_row_that_recurs_is_no_anomaly_when_scored_alone(seed: int, width: int) -> None:
    """Where the same few rows recur, rounding makes none exceed the calibration scores."""
    rng = np.random.default_rng(seed)
    normals = np.float32(rng.normal(size=(5, width))[rng.integers(5, size=600)])
    version = train(None, normals, Config(model=Model(latent=3, hidden=(16,), epochs=3)))
    alone = np.concatenate([version.score(row[None]) for row in np.unique(normals, axis=0)])
    p_values = version.calibration.p_values(version.score(normals))
    assert p_values.min() > 0.1
    assert version.calibration.threshold({"fpr": 0.01}).value > alone.max()


def test_normal_scores_of_learned_values_are_normal(skewed: Array) -> None:
    """For any shape the normal scores have mean 0 and deviation 1, and quantiles map to N(0, 1)."""
    x = (skewed - skewed.mean(axis=0)) / np.maximum(skewed.std(axis=0), 1e-6)
    marginals = Marginals.fit(x)
    y = marginals(x)
    np.testing.assert_allclose(y.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(y[:, :3].std(axis=0), 1.0, atol=1e-6)
    assert np.quantile(y[:, 0], [0.16, 0.5, 0.84]) == pytest.approx([-1, 0, 1], abs=0.1)


def test_normal_scores_are_linear_beyond_the_learned_range() -> None:
    """Beyond the learned range the map has the slope of the scaled units, up to REACH."""
    x = np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32)
    marginals = Marginals.fit(x)
    far = np.float32([[x.max() + 1], [x.max() + 3], [REACH], [2 * REACH]])
    y = marginals(far)[:, 0] / marginals.unit[0]
    assert y[1] - y[0] == pytest.approx(2.0, rel=1e-5)
    assert y[3] == y[2]


def test_normal_scores_are_inverted(skewed: Array) -> None:
    """The inverse returns learned values, and no value between whole numbers."""
    scale = np.float32([10, 4, 1, 1])
    x = skewed / scale
    marginals = Marginals.fit(x)
    assert marginals.values.shape == (4, KNOTS)
    back = marginals.inverse(marginals(x))
    inner = x[:, 0] < np.quantile(x[:, 0], 0.99)
    np.testing.assert_allclose(back[inner, :2], x[inner, :2], atol=0.02)
    drawn = marginals.inverse(np.random.default_rng(0).normal(size=(500, 4)))
    inside = drawn[:, 2] <= 3.0
    np.testing.assert_allclose(drawn[inside, 2], np.round(drawn[inside, 2]), atol=1e-9)


def test_a_data_density_equals_its_largest_component(skewed: Array) -> None:
    """The log density equals the best component's, written out in the features' own space."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    density = DataDensity.fit(z, seed=0)
    space, kernels, mixture = density.space, density.kernels, density.mixture
    k, scale = len(space.directions), space.scale[0]
    codes = (z - space.mean) @ space.directions.T
    gaussians = Density(mixture).joint(codes.astype(np.float32)).max(axis=1)
    squares = np.square(codes[:, None] - kernels.centres).sum(axis=2)
    of_kernels = kernels.shares - 0.5 * (
        squares / kernels.variances + k * (np.log(kernels.variances) + LOG_2PI)
    )
    expected = np.maximum(gaussians, of_kernels.max(axis=1)) - k * np.log(scale) - np.log(2)
    np.testing.assert_allclose(
        density.log_density_and_distance(z)[0], expected, rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize("d", [5, 60, 300])
def test_a_density_has_the_distance_of_the_nearest_centre(d: int) -> None:
    """The distance to the nearest centre is in the units of the data, in all directions."""
    rng = np.random.default_rng(6)
    z = (rng.normal(size=(500, d)) * np.linspace(2.0, 0.3, d)).astype(np.float32)
    density = DataDensity.fit(z, seed=0)
    centres = density.space.vectors(density.kernels.centres)
    expected = np.linalg.norm(z[:, None] - centres, axis=2).min(axis=1)
    far = density.log_density_and_distance(z)[1]
    np.testing.assert_allclose(far, expected, rtol=1e-3, atol=1e-3)
    alone = np.array([density.of_one(row) for row in z[:20]]).T
    # A row that is a centre has a distance of 0, or of the rounding of its products.
    together = [column[:20] for column in density.log_density_and_distance(z)]
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d", [3, 60, 300])
def test_draws_of_a_data_density_are_as_likely_as_its_data(d: int) -> None:
    """Drawn vectors are as likely as those it was fitted to, whatever the number of dimensions."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(1500, d)) * np.linspace(1.5, 0.2, d) + 2.0
    fitted, fresh = z[:1000], z[1000:]
    density = DataDensity.fit(fitted, seed=0)
    drawn = density.log_density_and_distance(density.sample(1000, rng))[0]
    assert np.median(drawn) == pytest.approx(
        np.median(density.log_density_and_distance(fitted)[0]), abs=0.1 * d + 1
    )
    back = DataDensity.from_tensors("p.", density.to_tensors("p."))
    np.testing.assert_array_equal(
        back.log_density_and_distance(fresh)[0], density.log_density_and_distance(fresh)[0]
    )


def test_the_score_is_the_largest_part_plus_small_shares(version: Version, skewed: Array) -> None:
    """The score is the largest surprise of network and views, plus small shares of the parts."""
    x = version.scaler.transform(skewed[:50])
    auto = Auto.from_tensors(version.network, version.scoring)
    parts = auto.parts(x)
    assert parts.shape == (ALWAYS + 2, 50)
    tables = version.scoring["auto.tables"][:ALWAYS]
    for table, scores in zip(tables, parts[:ALWAYS], strict=True):
        rare = scores > np.quantile(table, 0.99)
        assert (auto(x)[rare] >= -np.log(0.02)).all()
    np.testing.assert_array_equal(version.score(skewed[:50]), auto(x))


def test_values_between_modes_and_in_a_tail_are_found(version: Version, skewed: Array) -> None:
    """A value between modes and one in a tail are found by one view each; normals do not alarm."""
    gap = skewed[:1].copy()
    gap[:, 1] = 0.0
    tail = skewed[:1].copy()
    tail[:, 0] = skewed[:, 0].max() * 20
    assert version.is_anomaly(gap)[0]
    assert version.is_anomaly(tail)[0]
    assert version.is_anomaly(skewed).mean() < 0.03
    for X, column in ((gap, "1"), (tail, "0")):
        (attributions,) = version.explain(X, 1)
        assert attributions[0].feature == column


def test_a_version_with_the_default_score_is_read_back_equal(
    version: Version, skewed: Array
) -> None:
    """The artifact has the views and each part's calibration, and is read back equal."""
    back = Version.from_bytes(version.to_bytes())
    np.testing.assert_array_equal(back.score(skewed), version.score(skewed))
    assert len(version.to_bytes()) < 2**20


@given(
    st.lists(st.sampled_from([0.0, 1.0, -4.0, 7.0, 1e3, -1e6, 3e38]) | st.floats(-50, 50, width=32))
)
def test_a_vector_alone_is_judged_as_in_a_batch(version: Version, values: list[float]) -> None:
    """A vector alone has the same p-value and verdict as in a batch, common or extreme."""
    X = np.resize(np.float32([*values, 7.0]), (2, 4))
    X[0, 3] = 7.0  # as it was learned
    together = version.judge(X)
    for i, row in enumerate(X):
        alone = version.judge(row[None])
        np.testing.assert_allclose(alone.scores, together.scores[[i]], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(alone.p_values, together.p_values[[i]], rtol=1e-3)
        assert alone.is_anomaly[0] == together.is_anomaly[i]


def test_an_old_regime_stays_normal_without_its_rows() -> None:
    """After a second regime old normals do not alarm, old anomalies do, and no row is kept."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(800, 6)).astype(np.float32)
    second = (rng.normal(size=(800, 6)) * 0.5 + 8.0).astype(np.float32)
    fresh = rng.normal(size=(800, 6)).astype(np.float32)
    model = Model(epochs=30)
    config = Config(score="auto", model=model)
    v1 = train(None, first, config)
    v2 = train(v1, second, config)
    assert v2.lineage.bytes_kept == 0
    assert v2.is_anomaly(fresh).mean() < 0.04
    assert v2.is_anomaly(np.full((1, 6), 4.0, np.float32))[0]
    finetuned = train(v1, second, Config(score="auto", strategy="finetune", model=model))
    assert finetuned.is_anomaly(fresh).mean() > 0.5
    sizes = [sum(array.nbytes for array in v.scoring.values()) for v in (v1, v2)]
    assert sizes[1] < 2 * sizes[0]


def test_constant_columns_equal_rows_and_wide_rows_can_be_learned() -> None:
    """Constant columns, equal rows and more columns than rows can be learned."""
    rng = np.random.default_rng(4)
    for x in (
        np.zeros((40, 3)),
        np.tile(rng.normal(size=(2, 4)), (20, 1)),
        rng.normal(size=(32, 90)),
    ):
        views = Views.fit(x.astype(np.float32), 0)
        for misfit in views.misfits(x.astype(np.float32)):
            assert np.isfinite(misfit).all()
        assert np.isfinite(views.sample(10, rng)).all()


def test_few_rows_of_many_features_hold_the_rate() -> None:
    """With more features than rows the rate holds: held-out rows are as unknown as new ones."""
    rng = np.random.default_rng(5)
    mixed = rng.normal(size=(6, 90))
    X = (rng.normal(size=(400, 6)) @ mixed + rng.normal(size=(400, 90))).astype(np.float32)
    version = train(None, X[:60], Config(threshold={"fpr": 0.1}, model=Model(epochs=5)))
    assert version.is_anomaly(X[60:]).mean() < 0.25


def test_the_score_can_change_to_auto_and_from_it(version: Version, skewed: Array) -> None:
    """If the score changes to `auto` or from it, drawn vectors replace the rows."""
    elbo = version.with_config(Config(score="elbo"))
    assert elbo.scoring == {}
    again = elbo.with_config(Config(score="auto"))
    assert np.isfinite(again.score(skewed[:5])).all()


def test_old_artifacts_get_the_largest_normal_score() -> None:
    """An artifact with six parts is read and scores as before; its next version has one more."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(64, 260)).astype(np.float32)
    config = Config(model=Model(latent=2, hidden=(8,), epochs=1))
    version = train(None, X, config)
    assert len(version.scoring["auto.tables"]) == ALWAYS + 1
    odd = rng.normal(size=(50, 260)).astype(np.float32)
    odd[np.arange(50), rng.integers(260, size=50)] += 12.0
    assert version.is_anomaly(odd).mean() > 0.9
    alone = [version.judge(row[None]).scores[0] for row in odd[:5]]
    np.testing.assert_allclose(alone, version.score(odd[:5]), rtol=1e-5, atol=1e-4)

    tables = version.scoring["auto.tables"][:ALWAYS]
    earlier = replace(version, scoring={**version.scoring, "auto.tables": tables})
    back = Version.from_bytes(earlier.to_bytes())
    np.testing.assert_array_equal(back.score(odd), earlier.score(odd))
    assert len(train(back, X, config).scoring["auto.tables"]) == ALWAYS + 1


def _digits(*digits: int) -> Array:
    """Return scikit-learn's pictures of these digits, (n, 64), with pixels in [0, 1]."""
    pictures = load_digits()
    return (pictures.data[np.isin(pictures.target, digits)] / 16.0).astype(np.float32)


SMALL = Config(model=Model(latent=4, hidden=(32,), epochs=10))


def test_for_pictures_the_network_and_the_distance_count() -> None:
    """Pixels keep their common unit, and no density hides what network and distance find."""
    first, second, odd = _digits(1, 2)[:250], _digits(3)[:120], _digits(0)
    version = train(train(None, first, SMALL), second, SMALL)
    assert version.network.shape.likelihood == "bernoulli"
    assert len(version.scoring["auto.tables"]) == len(PICTURES)
    assert (version.scoring["views.unit"] == 1.0).all()
    rng = np.random.default_rng(0)
    drawn = version.draw(200, rng)
    less = with_less_noise(version.network, drawn, rng)
    views = Views.from_tensors(version.scoring)
    assert views.distance(less).mean() < views.distance(drawn).mean()
    assert (views.distance_in_plane(drawn) < views.distance(drawn)).all()
    fresh = np.concatenate([_digits(1, 2)[250:], _digits(3)[120:]])
    assert auroc(version.score(fresh), version.score(odd)) > 0.98
    assert version.is_anomaly(fresh).mean() < 0.05
    alone = [version.judge(row[None]).scores[0] for row in odd[:5]]
    np.testing.assert_allclose(alone, version.score(odd[:5]), rtol=1e-6)
    assert all(
        np.isfinite(attribution.contribution)
        for row in version.explain(odd[:3], 5)
        for attribution in row
    )


def test_old_artifacts_of_pictures_get_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact of pictures with all parts is read and scores as before; the next has two."""
    first, second = _digits(1, 2)[:100], _digits(3)[:100]
    for module in (auto, by_name, old_normals):
        monkeypatch.setattr(module, "learned_pictures", lambda _: False)
    earlier = train(None, first, SMALL)
    assert len(earlier.scoring["auto.tables"]) == ALWAYS + 2
    monkeypatch.undo()
    back = Version.from_bytes(earlier.to_bytes())
    np.testing.assert_array_equal(back.score(second), earlier.score(second))
    again = train(back, second, SMALL)
    assert len(again.scoring["auto.tables"]) == len(PICTURES)
    assert again.is_anomaly(np.concatenate([first, second])).mean() < 0.1


def test_versions_of_pictures_without_indices_of_parts_count_the_whole_distance() -> None:
    """They score as before; a training on top of them counts the distance in the plane."""
    first, second = _digits(1, 2)[:200], _digits(3)[:120]
    version = train(None, first, SMALL)
    network, scoring = version.network, version.scoring
    views, x = Views.from_tensors(scoring), version.scaler.transform(first)
    uncalibrated = Auto(network, views, EARLIER_PICTURES, [np.arange(2.0)] * 2)
    parts = uncalibrated.parts(x)
    np.testing.assert_allclose(parts[1], views.distance(x), rtol=1e-6)
    tables = needs(views, list(parts))["auto.tables"]
    without = {name: array for name, array in scoring.items() if name != "auto.parts"}
    earlier = Version.from_bytes(
        replace(version, scoring={**without, "auto.tables": tables}).to_bytes()
    )
    expected = Auto(network, views, EARLIER_PICTURES, list(tables))(x)
    np.testing.assert_allclose(earlier.score(first), expected, rtol=1e-5)
    again = train(earlier, second, SMALL)
    assert tuple(again.scoring["auto.parts"]) == PICTURES
    assert again.is_anomaly(np.concatenate([first, second])).mean() < 0.1


def test_versions_of_earlier_releases_learn_few_rows() -> None:
    """A part that an earlier release does not have gets as many old scores as the others."""
    version = train(None, _digits(1, 2)[:300], SMALL)
    scoring = {name: array for name, array in version.scoring.items() if name != "auto.parts"}
    again = train(replace(version, scoring=scoring), _digits(3)[:40], SMALL)
    assert tuple(again.scoring["auto.parts"]) == PICTURES
    assert again.is_anomaly(_digits(1, 2)[300:]).mean() < 0.1


def test_indices_of_other_parts_are_refused() -> None:
    """An artifact of pictures cannot name parts that no version of pictures has."""
    version = train(None, _digits(1)[:100], SMALL)
    scoring = {**version.scoring, "auto.parts": np.array([0, 2])}
    with pytest.raises(ArtifactError, match="are not those of pictures"):
        Version.from_bytes(replace(version, scoring=scoring).to_bytes())


def test_a_density_of_few_vectors_keeps_their_spread() -> None:
    """With fewer vectors than features, draws vary in total as much as the data."""
    rng = np.random.default_rng(9)
    z = rng.normal(size=(120, 4)) @ rng.normal(size=(4, 300)) + 0.1 * rng.normal(size=(120, 300))
    density = DataDensity.fit(z.astype(np.float32), seed=0)
    drawn = density.sample(2_000, rng)
    assert drawn.var(axis=0).sum() == pytest.approx(z.var(axis=0).sum(), rel=0.25)
    assert np.abs(np.corrcoef(drawn.std(axis=0), z.std(axis=0))[0, 1]) > 0.95
