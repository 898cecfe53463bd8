import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.parts.scaler import Scaler, squash, unsquash


@given(arrays(np.float64, 20, elements=st.floats(-1e6, 1e6)))
def test_squashing_can_be_undone(x: np.ndarray) -> None:
    """`unsquash(squash(x)) == x`, far out too."""
    np.testing.assert_allclose(unsquash(squash(x)), x, rtol=1e-6, atol=1e-9)


def test_units_do_not_matter() -> None:
    """A feature in nano and one in giga units scale alike."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 1)).astype(np.float32)
    both = Scaler.fit(np.hstack([X * 1e-9, X * 1e9])).transform(np.hstack([X * 1e-9, X * 1e9]))
    np.testing.assert_allclose(both[:, 0], both[:, 1], rtol=1e-4, atol=1e-5)


def test_a_constant_feature_keeps_its_unit() -> None:
    """No division by zero; a large constant's rounding is not taken for variation."""
    X = np.full((50, 1), 1e8, np.float32)
    assert Scaler.fit(X).scale == [1.0]


def test_the_widest_floats_stay_finite() -> None:
    """Nothing a client can send becomes infinite on the way in or out."""
    scaler = Scaler.fit(np.float32([[0.0], [1e-30]]))
    wide = np.float32([[3.4e38], [-3.4e38]])
    assert np.isfinite(scaler.transform(wide)).all()
    assert np.isfinite(scaler.inverse(scaler.transform(wide))).all()


def test_a_few_wild_values_do_not_flatten_a_feature() -> None:
    """One normal a million deviations out leaves the scale within a factor of two."""
    X = np.random.default_rng(0).normal(size=(2000, 1)).astype(np.float32)
    X[0] = 1e6
    assert 0.5 < Scaler.fit(X).scale[0] < 2.0
