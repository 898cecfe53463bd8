import numpy as np
import pytest

from models.modes import _merged, modes


def blobs(*centres: float, n: int = 300) -> np.ndarray:
    """Return n codes around each centre on the first of two latents, deviation 1."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal([c, 0], 1, (n, 2)) for c in centres]).astype(np.float32)


@pytest.mark.parametrize("centres", [(0.0,), (0.0, 8.0), (0.0, 8.0, 16.0)])
def test_a_mode_for_each_blob(centres: tuple[float, ...]):
    """Codes around centres that a valley separates are of one mode each, whatever its Gaussians."""
    found = modes(blobs(*centres), seed=0).reshape(len(centres), -1)
    assert [len(np.unique(row)) for row in found] == [1] * len(centres)
    assert len(np.unique(found)) == len(centres)


def test_an_idle_latent_says_nothing():
    """A latent without variance neither splits nor breaks anything."""
    codes = np.concatenate([blobs(0, 8), np.zeros((600, 1), np.float32)], axis=1)
    assert len(np.unique(modes(codes, seed=0))) == 2
    assert not modes(np.zeros((500, 3), np.float32), seed=0).any()


def test_few_codes_are_one_mode():
    """Codes for fewer than two Gaussians are not split."""
    assert not modes(blobs(0, 8, n=30), seed=0).any()


def test_a_mode_of_few_codes_joins_another():
    """One code in a hundred is not a mode, however far away."""
    codes = np.concatenate([blobs(0, n=990), blobs(60, n=10)])
    assert not modes(codes, seed=0).any()


def test_a_pass_that_is_high_enough_joins():
    """Peaks 8, 4, 6 with passes 3 and 1: the second is less than twice its pass, the third more."""
    peaks, passes = np.log([8.0, 4.0, 6.0]), np.log([3.0, 0.5, 1.0])
    assert _merged(peaks, [(0, 1), (0, 2), (1, 2)], passes).tolist() == [0, 0, 2]
