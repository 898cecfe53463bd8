import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.parts.piecewise_map import FAR, GAP, MOST_KNOTS, PiecewiseMap

KNOWN = np.array([[-4.0], [4.0]])


def map_of_ranges(*ends: tuple[float, float]) -> PiecewiseMap:
    """Return the map of one feature that learned uniform values between each pair of ends."""
    piecewise, known = PiecewiseMap.identity(1), KNOWN
    for low, high in ends:
        new = piecewise(np.linspace(low, high, 500)[:, None])
        piecewise = piecewise.extended(known, new)
        at = np.array([[min(low, known[0, 0])], [max(high, known[1, 0])]])
        known = np.stack(
            [np.minimum(known[0], piecewise(at)[0]), np.maximum(known[1], piecewise(at)[1])]
        )
    return piecewise


@given(arrays(np.float64, (9, 1), elements=st.floats(-1e6, 1e6)))
def test_a_bend_can_be_undone(u: np.ndarray) -> None:
    """For ranges on both sides the inverse returns the values that were mapped."""
    piecewise = map_of_ranges((90.0, 110.0), (-3e4, -2e4), (1e5, 1e5 + 0.01))
    np.testing.assert_allclose(piecewise.inverse(piecewise(u)), u, rtol=1e-6, atol=1e-6)


def test_learned_values_keep_their_place() -> None:
    """Learned values keep their place; a far range begins GAP beyond and has a deviation of one."""
    old = np.linspace(-5.0, 5.0, 50)[:, None]
    for low, high in ((90.0, 110.0), (-1e6, -9e5), (1_000.0, 1_000.1)):
        piecewise = map_of_ranges((low, high))
        np.testing.assert_allclose(piecewise(old), old, atol=1e-9)
        new = piecewise(np.linspace(low, high, 500)[:, None])
        assert new.std() == pytest.approx(1.0, rel=1e-3)
        assert 4.0 + GAP < np.abs(new).min() < 4.0 + GAP + 3.0


def test_a_wider_range_is_compressed_on_both_sides() -> None:
    """A range thirty times as wide is compressed on both sides; a near range bends nothing."""
    piecewise = map_of_ranges((-120.0, 120.0))
    assert np.abs(piecewise(np.array([[-120.0], [120.0]]))).max() < 10.0
    assert not map_of_ranges((-3.0, 4.0 + FAR / 2)).bent.any()


@pytest.mark.parametrize("value", [1e15, -1e17, 1e38])
def test_a_range_without_width_is_reached_however_far_it_is(value: float) -> None:
    """Equal new values get a range of their own also where float64 cannot tell value +- 1 apart."""
    piecewise = PiecewiseMap.identity(1).extended(KNOWN, np.full((64, 1), value))
    assert piecewise.bent.all()


def test_a_map_that_does_not_ascend_is_refused() -> None:
    """A map that does not ascend is refused, and one without a piece; the knots are bounded."""
    for at in ([[0.0], [0.0]], [[1.0], [0.0]], [[0.0]]):
        with pytest.raises(ValueError, match="ascend"):
            PiecewiseMap(np.array(at), np.arange(float(len(at)))[:, None])
    many = map_of_ranges(*((1e3 * 4.0**i, 1.1e3 * 4.0**i) for i in range(12)))
    assert len(many.inputs) <= MOST_KNOTS
