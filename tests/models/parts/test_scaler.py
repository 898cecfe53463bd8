import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.parts.scaler import Scaler, squash, unsquash


@given(arrays(np.float64, 20, elements=st.floats(-1e6, 1e6)))
def test_squashing_can_be_undone(x: np.ndarray) -> None:
    """`unsquash(squash(x)) == x`, also far out."""
    np.testing.assert_allclose(unsquash(squash(x)), x, rtol=1e-6, atol=1e-9)


def test_features_are_scaled_alike_in_any_unit() -> None:
    """A feature in nano-units and one in giga-units are scaled alike."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 1)).astype(np.float32)
    both = Scaler.fit(np.hstack([X * 1e-9, X * 1e9])).transform(np.hstack([X * 1e-9, X * 1e9]))
    np.testing.assert_allclose(both[:, 0], both[:, 1], rtol=1e-4, atol=1e-5)


def test_a_constant_feature_is_measured_in_its_own_value() -> None:
    """A constant feature causes no division by zero, and rounding does not count as variation."""
    X = np.full((50, 2), [1e8, 0.0], np.float32)
    np.testing.assert_allclose(Scaler.fit(X).scale, [3e3, 1e-3])


def test_the_widest_floats_stay_finite() -> None:
    """Every finite float32 stays finite through the map and its inverse."""
    scaler = Scaler.fit(np.float32([[0.0], [1e-30]]))
    wide = np.float32([[3.4e38], [-3.4e38]])
    assert np.isfinite(scaler.transform(wide)).all()
    assert np.isfinite(scaler.inverse(scaler.transform(wide))).all()


def test_a_few_wild_values_do_not_flatten_a_feature() -> None:
    """One value a million deviations out changes the scale by less than a factor of two."""
    X = np.random.default_rng(0).normal(size=(2000, 1)).astype(np.float32)
    X[0] = 1e6
    assert 0.5 < Scaler.fit(X).scale[0] < 2.0


def test_a_few_percent_of_spikes_do_not_decide_a_scale() -> None:
    """Five spikes in a hundred rows, up to a million, change the scale by less than ten times."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 1)).astype(np.float32)
    X[:100, 0] = np.exp(rng.uniform(0.0, np.log(1e6), 100))
    assert 0.5 < Scaler.fit(X).scale[0] < 10.0


def test_bending_the_scale_moves_no_learned_value() -> None:
    """A regime a hundred deviations away keeps its distances, and learned values their places."""
    rng = np.random.default_rng(0)
    old = rng.normal(size=(500, 2)).astype(np.float32)
    old[:, 1] = 7.0
    new = rng.normal(size=(500, 2)).astype(np.float32) + np.float32([100.0, 900.0])
    first = Scaler.fit(old)
    x = first.transform(old).astype(np.float64)
    known = np.stack([x.min(axis=0), x.max(axis=0)])
    then = first.extended(new, known, np.array([False, True]))
    np.testing.assert_allclose(then.transform(old), first.transform(old), atol=1e-6)
    scaled = then.transform(new)
    assert 0.8 < scaled[:, 0].std() < 1.2
    assert np.abs(scaled).max() < 20.0
    assert 0.9 < np.abs(scaled[:, 1]).mean() < 1.1
    np.testing.assert_allclose(then.inverse(scaled), new, rtol=1e-5)
    np.testing.assert_array_equal(then.transform_one(new[0]), scaled[0])
    assert first.extended(old, known, np.array([False, True])).piecewise is None
    wild = np.where(rng.random(old.shape) < 0.02, np.float32(1e6), old)
    assert first.extended(wild, known, np.array([False, False])).piecewise is None


@pytest.mark.parametrize("far", [1e3, 1e30, -1e30])
def test_a_drawn_value_beyond_float32_is_clipped(far: float) -> None:
    """A drawn value that float32 cannot hold in the client's units is clipped without a warning."""
    scaler = Scaler.fit(np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32))
    X = scaler.inverse(np.full((2, 3), far, np.float32))
    assert np.isfinite(X).all()
    assert (np.sign(X) == np.sign(far)).all()
