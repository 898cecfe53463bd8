import numpy as np

from models.parts.lineage import LearningCurve
from models.survey.learning_curves import allocate, fit_curve, learning_curve


def test_the_fit_returns_a_known_power_law():
    """From losses on a power law the fit returns that law."""
    n = np.array([10.0, 20.0, 40.0, 80.0])
    curve = fit_curve(n, -2.0 + 7.0 * n**-0.5)
    assert np.allclose((curve.floor, curve.scale, curve.exponent), (-2.0, 7.0, 0.5))
    assert np.isclose(curve.gain(100, 300), 7.0 * (0.1 - 0.05))


def test_losses_that_do_not_fall_give_a_flat_curve():
    """If more vectors do not help, the curve is flat."""
    assert fit_curve(np.array([10.0, 20.0, 40.0]), np.array([1.0, 1.1, 1.3])).gain(40, 1000) == 0


def test_a_budget_goes_where_it_gains_most():
    """The budget equalises the gain of the next vector; a flat curve gets none."""
    steep, shallow, flat = (
        LearningCurve(exponent=1.0, floor=0.0, scale=scale) for scale in (4.0, 1.0, 0.0)
    )
    # d/dn (4/n) = d/dm (1/m) where n = 2 m; 100 + 100 + 400 = 600 = 400 + 200.
    assert allocate([steep, shallow, flat], [100, 100, 100], 400) == [300, 100, 0]
    # A regime that already has enough vectors gets none.
    assert allocate([steep, shallow], [100, 5000], 50) == [50, 0]
    assert allocate([flat, flat], [10, 10], 50) == [0, 0]


def test_the_loss_of_a_known_gaussian_approaches_its_entropy():
    """With many vectors the loss is the entropy; with few vectors it is some nats more."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(600, 6)) * [3, 2, 1, 1, 1, 1]).astype(np.float32)
    curve = learning_curve(x, 2, np.random.default_rng(1))
    assert curve is not None
    entropy = 0.5 * 6 * (1 + np.log(2 * np.pi)) + np.log(6.0)
    assert abs(curve.floor - entropy) < 0.3
    assert 0.1 < curve.gain(50, 1e9) < 1.0


def test_the_loss_of_wide_vectors_equals_that_of_the_covariance():
    """With more features than vectors the loss equals that of the covariance itself."""
    x = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    curve = learning_curve(x, 3, np.random.default_rng(1))
    assert curve is not None
    entropy = 0.5 * 40 * (1 + np.log(2 * np.pi))
    assert abs(curve.floor + curve.scale * 40**-curve.exponent - entropy) < 0.15 * entropy


def test_few_vectors_show_no_curve():
    """With fewer than 48 vectors there is no curve."""
    assert learning_curve(np.zeros((47, 3), np.float32), 2, np.random.default_rng(0)) is None
