import numpy as np
import pytest

from benchmarks.class_incremental import accuracy, taken_for
from benchmarks.continual_permuted import permutation
from benchmarks.memory import left, pooled
from benchmarks.report import spread


def test_the_band_is_left_when_five_in_a_row_are_outside_on_average():
    """One bad experience is not enough: the mean of five in a row must be outside the band."""
    values = [1, 1, 1, 1, 1, 0, 0, 0]
    assert left(values, lambda mean: mean < 0.5) == 8
    assert left(values, lambda mean: mean < 0.3) is None


def test_confusions_are_counted_by_row():
    """Row c of the confusions counts what the images of class c are classified as."""
    found = [[3, 1], [2, 2]]
    assert accuracy(found, [0]) == 0.75
    assert accuracy(found, [0, 1]) == 0.625
    assert taken_for(found, [1], [0]) == 0.5


def test_only_the_middle_is_permuted_and_the_first_task_not_at_all():
    """The middle pixels are permuted and the border is not; the first task has no permutation."""
    assert permutation(0, 14).tolist() == list(range(784))
    moved = permutation(3, 14)
    assert sorted(moved) == list(range(784))
    assert (moved == np.arange(784))[: 7 * 28].all()
    assert (moved != np.arange(784)).sum() == pytest.approx(14 * 14, abs=5)


def test_pooling_takes_means_of_squares():
    """A square of 4x4 bright pixels becomes one bright number."""
    image = np.zeros((28, 28), np.float32)
    image[4:8, :4] = 16
    assert pooled(image[None].reshape(1, 784))[0].tolist() == [0] * 7 + [16] + [0] * 41


def test_a_spread_is_a_mean_and_a_deviation():
    """One value has no deviation; no value gives an empty text."""
    assert [spread([0.9, 0.92]), spread([0.9]), spread([])] == ["0.910 ± 0.010", "0.900", ""]
