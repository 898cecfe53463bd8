import numpy as np
import pytest

from models.arrays import Array
from models.parts.mixture import Mixture
from models.parts.network import Network, Shape
from models.strategies.exemplars import (
    Candidates,
    herd,
    keep_all,
    keep_by_herding,
    keep_by_reservoir,
    keep_newest,
)


def identity() -> Network:
    """Return a network whose mean code is the vector itself, for positive vectors."""
    shape = Shape(2, 2, (2,), "gaussian")
    tensors = {name: np.zeros(size, np.float32) for name, size in shape.tensors().items()}
    tensors["encoder.0.weight"] = np.eye(2, dtype=np.float32)
    tensors["encoder.1.weight"] = np.eye(2, 4, dtype=np.float32)
    return Network(shape, tensors)


def two_regimes(old: Array, new: Array, generated: Array | None = None) -> Candidates:
    """Return candidates of two regimes, around (0, 0) and (9, 9)."""
    latents = Mixture(
        np.array([0.5, 0.5]),
        np.array([[0, 0], [9, 9]], np.float32),
        np.stack([np.eye(2, dtype=np.float32)] * 2),
    )
    generated = old if generated is None else generated
    rng = np.random.default_rng(0)
    return Candidates(old, new, generated, len(generated), identity(), latents, rng)


def vectors_near(place: float, n: int) -> Array:
    """Return n non-negative vectors near (place, place)."""
    return np.abs(np.random.default_rng(n).normal(place, 0.3, size=(n, 2))).astype(np.float32)


def test_codes_are_assigned_to_the_mode_they_came_from() -> None:
    """Codes go to the mode of the largest likelihood times weight, with its own covariance."""
    candidates = two_regimes(vectors_near(0, 3), vectors_near(9, 3))
    np.testing.assert_array_equal(candidates.regimes(keep_all(candidates)), [0, 0, 0, 1, 1, 1])


def test_the_reservoir_is_bounded_and_balances_its_regimes() -> None:
    """With rho = 1/2, a regime of 25 vectors beside 400 gets 1 place of 5, not 1 of 17."""
    start = two_regimes(vectors_near(0, 0), vectors_near(0, 400))
    first = keep_by_reservoir(start, size=50)
    assert len(first) == 50
    later = keep_by_reservoir(
        two_regimes(first, vectors_near(9, 25), generated=vectors_near(0, 400)), size=50
    )
    assert len(later) == 50
    few = int((later[:, 0] > 4).sum())
    assert 6 <= few <= 14  # p = sqrt(25) / (sqrt(25) + sqrt(400)) = 1/5 of 50


def test_vectors_of_a_regime_are_kept_with_one_chance() -> None:
    """The first vectors of one regime are kept as often as the last ones."""
    new = vectors_near(0, 300)
    counts = np.zeros(300)
    for seed in range(60):
        candidates = two_regimes(new[:0], new)
        chosen = keep_by_reservoir(
            Candidates(new[:0], new, new[:0], 0, candidates.network, candidates.latents,
                       np.random.default_rng(seed)), size=30,
        )  # fmt: skip
        counts += np.isin(new[:, 0], chosen[:, 0])
    assert counts.sum() == 60 * 30
    assert counts.max() <= 20  # 6 expected, with a deviation of 2.3


def test_herding_chooses_vectors_near_the_mean() -> None:
    """Of 1, 2, 3, 4 and 10, with mean 4, each choice brings the mean of the chosen nearest."""
    codes = np.array([[1.0], [2.0], [3.0], [4.0], [10.0]])
    assert codes[herd(codes, 5)].ravel().tolist() == [4.0, 3.0, 2.0, 10.0, 1.0]


def test_herded_exemplars_have_equal_quotas() -> None:
    """Regimes have equal quotas; the others get the places of one with too few vectors."""
    kept = keep_by_herding(two_regimes(vectors_near(0, 40), vectors_near(9, 5)), size=20)
    assert [int((kept[:, 0] < 4).sum()), int((kept[:, 0] > 4).sum())] == [15, 5]
    assert len(keep_by_herding(two_regimes(vectors_near(0, 4), vectors_near(9, 5)), size=20)) == 9


@pytest.mark.parametrize("size", [1, 7, 12])
def test_a_window_keeps_the_newest(size: int) -> None:
    """A window keeps the newest vectors in their order."""
    candidates = two_regimes(vectors_near(0, 5), vectors_near(9, 7))
    np.testing.assert_array_equal(keep_newest(candidates, size), keep_all(candidates)[-size:])
