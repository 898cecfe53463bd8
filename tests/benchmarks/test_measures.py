import numpy as np
import pytest

from benchmarks.class_incremental import accuracy, share_classified_as
from benchmarks.continual_permuted import permutation
from benchmarks.memory import departure_after, pooled_images
from benchmarks.report import spread


def test_experience_leaves_band_when_mean_of_five_is_outside():
    """One bad experience is not enough: the mean of five in a row must be outside the band."""
    values = [1, 1, 1, 1, 1, 0, 0, 0]
    assert departure_after(values, lambda mean: mean < 0.5) == 8
    assert departure_after(values, lambda mean: mean < 0.3) is None


def test_confusion_matrix_has_a_row_for_each_true_class():
    """Row c of the confusions counts what the images of class c are classified as."""
    matrix = [[3, 1], [2, 2]]
    assert accuracy(matrix, [0]) == 0.75
    assert accuracy(matrix, [0, 1]) == 0.625
    assert share_classified_as(matrix, [1], [0]) == 0.5


def test_permuted_mnist_permutes_the_middle():
    """The middle pixels are permuted and the border is not; the first task has no permutation."""
    assert permutation(0, 14).tolist() == list(range(784))
    moved = permutation(3, 14)
    assert sorted(moved) == list(range(784))
    assert (moved == np.arange(784))[: 7 * 28].all()
    assert (moved != np.arange(784)).sum() == pytest.approx(14 * 14, abs=5)


def test_pooling_averages_squares_of_pixels():
    """A square of 4x4 bright pixels becomes one bright number."""
    image = np.zeros((28, 28), np.float32)
    image[4:8, :4] = 16
    assert pooled_images(image[None].reshape(1, 784))[0].tolist() == [0] * 7 + [16] + [0] * 41


def test_spread_is_written_as_mean_and_deviation():
    """One value has no deviation; no value gives an empty text."""
    assert [spread([0.9, 0.92]), spread([0.9]), spread([])] == ["0.910 ± 0.010", "0.900", ""]
