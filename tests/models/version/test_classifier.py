import numpy as np
import pytest

from models import Config, Model, Version, train
from models.arrays import Array
from models.version.classifier import (
    EXEMPLARS,
    class_probabilities,
    classes,
    nearest_mean,
    to_memory,
)

QUICK = Model(epochs=25)


def learn_two_then_two(digits: dict[int, Array], config: Config) -> Version:
    """Learn 0 and 1 with their labels, then 2 and 3."""
    version = None
    for labels in ((0, 1), (2, 3)):
        X = np.concatenate([digits[digit][:100] for digit in labels])
        version = train(version, X, config, labels=np.repeat(labels, 100))
    assert version is not None
    return version


def shares_of_right_labels(version: Version, digits: dict[int, Array]) -> list[float]:
    """Return the share of each class's test vectors that get their own label."""
    return [float((version.classify(digits[d][100:]) == d).mean()) for d in range(4)]


def test_the_head_is_the_softmax_of_a_small_network_on_the_code() -> None:
    """The head computes softmax(V relu(U z + a) + b)."""
    U, a = np.float32([[1, -1]]), np.float32([[0, 0.5]])
    V, b = np.float32([[1, 0, 2], [0, 1, 1]]), np.float32([[0, 0, -1]])
    memory = to_memory(np.array([4, 7, 9]), [U, a, V, b])
    logits = np.array([[2.0, 0.0, 3.0], [0.0, 1.5, 0.5]])  # z = 2 and z = -1
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        class_probabilities(memory, np.float32([[2], [-1]])), expected, rtol=1e-6
    )
    np.testing.assert_array_equal(classes(memory), [4, 7, 9])


def test_the_nearest_mean_is_among_codes_of_length_one() -> None:
    """The nearest mean is by the direction of a code, not by its length."""
    exemplars = np.float32([[9, 0], [9, 1], [0, 1], [0.1, 1]])
    chosen = nearest_mean(np.float32([[0.1, 0.5], [50, 1]]), exemplars, np.array([3, 3, 8, 8]))
    np.testing.assert_array_equal(chosen, [8, 3])


@pytest.mark.thorough
def test_replayed_labels_keep_the_old_classes(digits: dict[int, Array]) -> None:
    """Old and new classes are distinguished without an old vector, also from the artifact."""
    version = learn_two_then_two(digits, Config(model=QUICK))
    assert min(shares_of_right_labels(version, digits)[:2]) > 0.8
    assert np.mean(shares_of_right_labels(version, digits)) > 0.8
    assert not len(version.kept)
    loaded = Version.from_bytes(version.to_bytes())
    np.testing.assert_array_equal(loaded.classify(digits[2]), version.classify(digits[2]))
    # Vectors without labels move the codes; the old classes are learned again on replay.
    later = train(version, digits[4][:100], Config(model=QUICK))
    assert min(shares_of_right_labels(later, digits)) > 0.7


@pytest.mark.parametrize(
    ("strategy", "old", "new"),
    [("finetune", [0, 0.2], [0.8, 1]),
     *(pytest.param(*case, marks=pytest.mark.thorough) for case in (
         ("lwf", [0.5, 1], [0, 1]), ("icarl", [0.5, 1], [0.5, 1]), ("joint", [0.8, 1], [0.8, 1]),
     ))],
)  # fmt: skip
def test_finetuning_is_biased_to_new_classes(
    digits: dict[int, Array], strategy: str, old: list[float], new: list[float]
) -> None:
    """Finetuning assigns everything to new classes; strategies that keep vectors do not."""
    version = learn_two_then_two(digits, Config(strategy=strategy, model=QUICK))
    shares = shares_of_right_labels(version, digits)
    assert old[0] <= np.mean(shares[:2]) <= old[1]
    assert new[0] <= np.mean(shares[2:]) <= new[1]
    if len(version.kept):
        named = version.memory[EXEMPLARS]
        assert len(named) == len(version.kept)
        assert set(named.tolist()) == {0, 1, 2, 3}
