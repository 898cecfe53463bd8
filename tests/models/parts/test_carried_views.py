"""Components of densities that are carried from version to version."""

import numpy as np

from models.arrays import Array, Float64
from models.parts.carried_views import CarriedViews
from models.parts.components import Components
from models.parts.data_density import KERNELS, DataDensity
from models.parts.marginals import Marginals
from models.parts.mixture import MODES
from models.parts.views import Views


def random_components(
    rng: np.random.Generator, gaussians: int, kernels: int, k: int = 3
) -> Components:
    """Return random components."""
    factors = np.tril(rng.normal(size=(gaussians, k, k))) + 2.0 * np.eye(k)
    return Components(
        rng.dirichlet(np.ones(gaussians)),
        rng.normal(size=(gaussians, k)) * 5.0,
        factors @ factors.transpose(0, 2, 1),
        rng.dirichlet(np.ones(kernels)),
        rng.normal(size=(kernels, k)) * 5.0,
        rng.uniform(0.1, 1.0, kernels),
    )


def moments(weights: Float64, means: Float64, covariances: Float64) -> tuple[Float64, Float64]:
    """Return the mean (k,) and the covariance (k, k) of a whole mixture."""
    mean = weights @ means
    centred = means - mean
    outer = covariances + centred[:, :, None] * centred[:, None]
    return mean, (weights[:, None, None] * outer).sum(axis=0)


def kernel_moments(components: Components) -> tuple[Float64, Float64]:
    """Return mean and covariance of all kernels together."""
    covariances = components.variances[:, None, None] * np.eye(components.centres.shape[1])
    return moments(components.shares, components.centres, covariances)


def test_a_linear_map_moves_components_exactly() -> None:
    """Means, covariances, centres and variances are those of the mapped components."""
    rng = np.random.default_rng(0)
    old, turn = random_components(rng, 4, 6), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    new = old.mapped(lambda codes: codes @ (2.0 * turn) + 1.0, 0.0)
    np.testing.assert_allclose(new.means, old.means @ (2.0 * turn) + 1.0)
    np.testing.assert_allclose(new.covariances, 4.0 * turn.T @ old.covariances @ turn)
    np.testing.assert_allclose(new.centres, old.centres @ (2.0 * turn) + 1.0)
    np.testing.assert_allclose(new.variances, 4.0 * old.variances)


def test_merged_components_have_the_spread_of_all() -> None:
    """Merging 16 Gaussians to 4, and 50 kernels to 10, keeps the moments of the whole."""
    rng = np.random.default_rng(1)
    both = random_components(rng, 9, 30).joined_with(random_components(rng, 7, 20), 0.7)
    few = both.merged(4, 10)
    assert (len(few.weights), len(few.shares)) == (4, 10)
    for whole, merged in zip(moments(*both[:3]), moments(*few[:3]), strict=True):
        np.testing.assert_allclose(merged, whole, rtol=1e-9)
    (mean, spread), (mean_few, spread_few) = kernel_moments(both), kernel_moments(few)
    np.testing.assert_allclose(mean_few, mean, rtol=1e-9)
    np.testing.assert_allclose(np.trace(spread_few), np.trace(spread), rtol=1e-9)


def test_the_most_similar_components_merge() -> None:
    """Of four Gaussians and four kernels, the two that lie 0.1 apart become one in the middle."""
    means, shares = np.array([[0.0], [10.0], [0.1], [30.0]]), np.full(4, 0.25)
    four = Components(shares, means, np.ones((4, 1, 1)), shares, means, np.ones(4))
    few = four.merged(3, 3)
    np.testing.assert_allclose(np.sort(few.means.ravel()), [0.05, 10.0, 30.0])
    np.testing.assert_allclose(np.sort(few.centres.ravel()), [0.05, 10.0, 30.0])


def test_a_narrow_gaussian_can_be_carried_on() -> None:
    """A density that got such a Gaussian is moved again, and its wide variance stays."""
    rng, k = np.random.default_rng(2), 12
    turn = np.linalg.qr(rng.normal(size=(k, k)))[0]
    variances = np.full(k, 1e-8)
    variances[0] = 1e10
    wide = (turn * variances) @ turn.T
    alone = random_components(rng, 1, 1, k)._replace(covariances=wide[None])
    density = DataDensity.fit(rng.normal(size=(400, k)).astype(np.float32), seed=0)
    joined = density.joined_with(alone, 0.5)
    again = joined.components_in(joined, lambda z: z)
    np.testing.assert_allclose(np.linalg.eigvalsh(again.covariances).max(), 1e10, rtol=1e-3)
    assert np.linalg.eigvalsh(again.covariances).min() > 0.0


def pictures(i: int, n: int, rng: np.random.Generator) -> Array:
    """Return n pictures of 60 pixels: ten are lit, and in one of five pictures a stray one too."""
    rows = np.zeros((n, 60), np.float32)
    rows[:, 10 * i : 10 * i + 10] = rng.random((n, 10))
    stray = rng.choice(n, n // 5, replace=False)
    rows[stray, rng.integers(60, size=len(stray))] = 10.0 ** rng.uniform(-3.0, 0.0, len(stray))
    return rows


def test_old_components_keep_their_width_on_pictures() -> None:
    """Over four experiences no Gaussian becomes ten times as wide as all pictures together."""
    rng = np.random.default_rng(5)
    views, widest = Views.fit(pictures(0, 600, rng), 0), []
    for i in range(1, 4):
        drawn = views.sample(600 * i, rng)
        views = CarriedViews.fit(views, drawn, pictures(i, 600, rng), 0).views
        widest.append(np.linalg.eigvalsh(views.shrunk.components.covariances).max())
    assert max(widest) < 10.0


def rows_of_regime(i: int, n: int, rng: np.random.Generator) -> Array:
    """Return n rows of the i-th regime: whole numbers and a narrow ridge."""
    first = rng.integers(0, 3, n) + 4.0 * i
    second = rng.exponential(size=n)
    rows = np.stack([first, second, 0.5 * second + 0.05 * rng.normal(size=n) - i], axis=1)
    return rows.astype(np.float32)


def test_centres_stay_close_to_old_rows_over_nine_experiences() -> None:
    """After nine experiences, old rows are nearly as close to the centres as if learned at once."""
    rng = np.random.default_rng(2)
    fresh = np.concatenate([rows_of_regime(i, 200, rng) for i in range(3)])
    views = Views.fit(rows_of_regime(0, 200, rng), 0)
    for i in range(1, 9):
        drawn = views.sample(200 * min(i, 5), rng)
        views = CarriedViews.fit(views, drawn, rows_of_regime(i % 3, 200, rng), i).views
    assert len(views.normal.kernels.shares) == KERNELS
    assert len(views.normal.mixture.weights) <= MODES
    at_once = Views.fit(np.concatenate([rows_of_regime(i, 400, rng) for i in range(3)]), 0)
    now, then = (np.quantile(fitted.misfits(fresh), 0.99, axis=1) for fitted in (views, at_once))
    # with components fitted to draws they are 1.3 to 1.7 times as far
    assert (now[2:4] < 1.25 * then[2:4]).all()


def rows_with_total(n: int, rng: np.random.Generator) -> Array:
    """Return n rows of four counts and their total."""
    counts = rng.poisson(np.exp(2.5 + 0.5 * rng.normal(size=(n, 1))), (n, 4))
    return np.column_stack([counts, counts.sum(axis=1)]).astype(np.float32)


def test_a_total_of_whole_numbers_is_kept() -> None:
    """Drawn rows do not have the total; it is kept while new rows have it, and lost if not."""
    rng = np.random.default_rng(3)
    mean, deviation = (f(rows_with_total(2_000, rng), axis=0) for f in (np.mean, np.std))

    def scaled_rows(n: int) -> Array:
        return ((rows_with_total(n, rng) - mean) / deviation).astype(np.float32)

    views = Views.fit(scaled_rows(400), 0)
    for seed in range(1, 4):
        views = CarriedViews.fit(views, views.sample(400 * seed, rng), scaled_rows(400), seed).views
    later = scaled_rows(1_000)
    off = later + np.float32(8.0 / deviation[4]) * np.eye(5, dtype=np.float32)[4]
    usual = np.quantile(views.misfits(later)[0], 0.99)
    assert (views.misfits(off)[0] > usual).mean() > 0.95
    without_total = rng.permuted(scaled_rows(400), axis=0)
    assert views.fine
    assert not views.fine.holds(without_total)


def test_the_map_knows_no_values_between_recurring_ones() -> None:
    """A joined map has learned values as its knots; interpolated ones would drift with updates."""
    rng = np.random.default_rng(0)
    marginals = Marginals.fit(rng.integers(16, size=(600, 2)).astype(np.float32))
    for _ in range(5):
        marginals = marginals.joined(rng.integers(8, size=(100, 2)).astype(np.float32), 0.9)
    assert (marginals.values % 1.0 == 0.0).mean() > 0.9
    assert set(range(16)) <= set(marginals.values[0].tolist())


def test_a_joined_map_of_continuous_values_lies_between_old_and_new() -> None:
    """Of values that do not recur, a joined map interpolates: its quantiles are the mixture's."""
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2000, 1)), rng.normal(4.0, 1.0, (500, 1))
    marginals = Marginals.fit(old.astype(np.float32)).joined(new.astype(np.float32), 0.8)
    quantiles = np.quantile(np.concatenate([old, new]), np.linspace(0.01, 0.99, 99))
    np.testing.assert_allclose(marginals.values[0, 1:-1], quantiles, atol=0.15)
