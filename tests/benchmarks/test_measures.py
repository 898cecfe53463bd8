import numpy as np
import pytest

from benchmarks.class_incremental import accuracy, taken_for
from benchmarks.continual_permuted import permutation
from benchmarks.memory import left, pooled
from benchmarks.report import spread


def test_the_band_is_left_when_five_in_a_row_are_outside_on_average():
    """One bad experience is not enough."""
    values = [1, 1, 1, 1, 1, 0, 0, 0]
    assert left(values, lambda mean: mean < 0.5) == 8
    assert left(values, lambda mean: mean < 0.3) is None


def test_confusions_are_counted_by_row():
    """Rows are what a class's images are taken for."""
    found = [[3, 1], [2, 2]]
    assert accuracy(found, [0]) == 0.75
    assert accuracy(found, [0, 1]) == 0.625
    assert taken_for(found, [1], [0]) == 0.5


def test_only_the_middle_is_permuted_and_the_first_task_not_at_all():
    """Every pixel has its place, and the border keeps its own."""
    assert permutation(0, 14).tolist() == list(range(784))
    moved = permutation(3, 14)
    assert sorted(moved) == list(range(784))
    assert (moved == np.arange(784))[: 7 * 28].all()
    assert (moved != np.arange(784)).sum() == pytest.approx(14 * 14, abs=5)


def test_pooling_takes_means_of_squares():
    """A lit square of 4x4 pixels is one lit number."""
    image = np.zeros((28, 28), np.float32)
    image[4:8, :4] = 16
    assert pooled(image[None].reshape(1, 784))[0].tolist() == [0] * 7 + [16] + [0] * 41


def test_a_spread_is_a_mean_and_a_deviation():
    """One value has no deviation, and none has nothing to say."""
    assert [spread([0.9, 0.92]), spread([0.9]), spread([])] == ["0.910 ± 0.010", "0.900", ""]
