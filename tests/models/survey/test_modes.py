import numpy as np
import pytest

from models.survey.modes import FEWEST, _best_mixture, _valley_depth, modes, separated


def blobs(*centres: float, n: int = 300) -> np.ndarray:
    """Return n codes around each centre on the first of two latents, deviation 1."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal([c, 0], 1, (n, 2)) for c in centres]).astype(np.float32)


@pytest.mark.parametrize("centres", [(0.0,), (0.0, 8.0), (0.0, 8.0, 16.0)])
def test_each_separate_group_of_codes_is_a_mode(centres: tuple[float, ...]):
    """Codes around centres with valleys between them have one mode per centre."""
    modes_found = modes(blobs(*centres), seed=0).reshape(len(centres), -1)
    assert [len(np.unique(row)) for row in modes_found] == [1] * len(centres)
    assert len(np.unique(modes_found)) == len(centres)


def test_an_idle_latent_has_no_influence():
    """A latent without variance has no influence."""
    codes = np.concatenate([blobs(0, 8), np.zeros((600, 1), np.float32)], axis=1)
    assert len(np.unique(modes(codes, seed=0))) == 2
    assert not modes(np.zeros((500, 3), np.float32), seed=0).any()


def test_few_codes_are_one_mode():
    """Too few codes for two Gaussians are one mode."""
    assert not modes(blobs(0, 8, n=30), seed=0).any()


def test_a_mode_of_few_codes_joins_another():
    """One code in a hundred is no mode, however far away it is."""
    codes = np.concatenate([blobs(0, n=990), blobs(60, n=10)])
    assert not modes(codes, seed=0).any()


def test_a_bent_arc_is_one_mode():
    """A bent arc in ten latents takes several Gaussians, and is one mode."""
    rng = np.random.default_rng(0)
    angle, noise = rng.uniform(0, 2, 2000), rng.normal(size=(2000, 10))
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ rng.normal(size=(2, 10))
    codes = (arc + 0.2 * noise).astype(np.float32)
    assert len(_best_mixture(codes.astype(np.float64), 20, seed=0).means_) > 1
    assert not modes(codes, seed=0).any()


@pytest.mark.parametrize(("distance", "valley"), [(2.5, False), (5.0, True)])
def test_two_groups_are_separated_by_a_valley_of_the_density(distance: float, valley: bool):
    """In ten latents, at a distance of 2.5 and 5 deviations, the valley is 1.1 and 11 times lower.

    Only the second one separates the groups.
    """
    codes = np.random.default_rng(0).normal(size=(1000, 10)).astype(np.float32)
    codes[500:, 3] += distance
    assert separated(codes, np.repeat([0, 1], 500))[0, 1] == valley


def test_a_valley_is_as_deep_as_its_lower_side():
    """The depth of a valley is relative to the lower peak; two equal groups have none."""
    deep = _valley_depth(np.array([0.8, 0.2]), np.array([0.0, 20.0]), np.array([1.0, 1.0]))
    assert deep == pytest.approx(50 + np.log(0.2), abs=0.5)
    assert _valley_depth(np.ones(2) / 2, np.zeros(2), np.full(2, 1e-12)) == 0.0


@pytest.mark.parametrize("n", [1_000, 4_000])
def test_an_idle_latent_separates_no_groups(n: int):
    """Groups that differ only in a latent of almost no variance are not separated."""
    codes = np.random.default_rng(0).normal(size=(2 * n, 20)).astype(np.float32)
    codes[:, 0] *= 0.01
    codes[n:, 0] += 0.08
    assert not separated(codes, np.repeat([0, 1], n)).any()


@pytest.mark.parametrize("few", [FEWEST, 20, 100])
def test_groups_of_any_sizes_are_separated_by_a_valley(few: int):
    """In 20 latents few codes are not separated from many by chance; six deviations are."""
    codes = np.random.default_rng(0).normal(size=(1000 + few, 20)).astype(np.float32)
    group_of = np.repeat([0, 1], [1000, few])
    assert not separated(codes, group_of).any()
    codes[1000:, 7] += 6
    assert separated(codes, group_of).tolist() == [[False, True], [True, False]]


def test_a_group_of_too_few_codes_is_separated_from_none():
    """A group of too few codes is separated from none, however far away it is."""
    codes = np.random.default_rng(0).normal(size=(1000 + FEWEST - 1, 3)).astype(np.float32)
    codes[1000:] += 50
    assert not separated(codes, np.repeat([0, 1], [1000, FEWEST - 1])).any()


def test_two_repeated_codes_are_two_modes():
    """Two values, three hundred times each, are two modes, without a warning."""
    codes = np.repeat(np.float32([[0, 0], [5, 5]]), 300, axis=0)
    assert len(np.unique(modes(codes, seed=0))) == 2
