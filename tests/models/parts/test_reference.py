"""Which features a reference calls constant."""

import numpy as np
import pytest

from models import Config, train
from models.parts.reference import Reference


@pytest.mark.parametrize("value", [0.0, 3.7, -5.0, 1e6, 1e-20, 3.4e38, -3.4e38])
def test_a_feature_with_one_value_is_constant_until_it_varies(value: float) -> None:
    """A feature is constant as long as all its values are equal."""
    still = np.full((200, 1), value, np.float32)
    reference = Reference.fit(still)
    assert reference.constant.tolist() == [True]
    assert reference.updated(still, 0.5).constant.tolist() == [True]
    assert reference.updated(still / 2 + 1, 0.5).constant.tolist() == [False]


@pytest.mark.parametrize("share", [0.001, 0.05, 0.6])
def test_a_feature_that_rarely_changes_is_not_constant(share: float) -> None:
    """A feature with a few other values is not constant, though all its deciles may be equal."""
    rows = np.zeros((4_000, 2), np.float32)
    rows[: int(share * len(rows))] = 1.0, -1.0
    assert Reference.fit(rows).constant.tolist() == [False, False]


def test_no_learned_value_of_a_rare_counter_moves() -> None:
    """A counter is 0 in most rows. A batch with larger counts moves no learned value."""
    rng = np.random.default_rng(0)

    def rows(most: int) -> np.ndarray:
        counter = np.where(rng.random(400) < 0.03, rng.integers(1, most, 400), 0)
        return np.column_stack([rng.normal(size=(400, 2)), counter]).astype(np.float32)

    first = rows(4)
    before = train(None, first, Config(score="elbo"))
    after = train(before, rows(200), Config(score="elbo"))
    np.testing.assert_array_equal(after.scaler.transform(first), before.scaler.transform(first))


@pytest.mark.parametrize("value", [0.0, 1e-5, -0.01, 60.0])
def test_the_value_of_a_constant_is_restored(value: float) -> None:
    """Drawn values of a constant, also of one near 0, are the constant itself; others stay."""
    rows = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    rows[:, 0] = value
    restored = Reference.fit(rows).with_constants(rows + np.float32(1e-4))
    assert (restored[:, 0] == np.float32(value)).all()
    assert (restored[:, 1] == rows[:, 1] + np.float32(1e-4)).all()
