"""Real digits, small and large blobs, and versions trained once for the whole run."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from models import Config, Version, train
from models.arrays import Array


@pytest.fixture(scope="session")
def digits() -> dict[int, Array]:
    """Return scikit-learn's 8x8 digits, by class: (n, 64) float32 in 0..16 each."""
    X, y = load_digits(return_X_y=True)
    return {digit: X[y == digit].astype(np.float32) for digit in range(10)}


@pytest.fixture(scope="session")
def blob() -> Array:
    """Return 400 vectors of 6 features that depend on two causes, in very different units."""
    rng = np.random.default_rng(7)
    z = rng.normal(size=(400, 2))
    X = z @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(400, 6))
    return (X * [1, 1e-6, 1e6, 1, 1, 1] + [0, 0, 5e7, 100, 0, 0]).astype(np.float32)


@pytest.fixture(scope="session")
def first(blob: Array) -> Version:
    """Return a version with named features, trained on the blob with all defaults."""
    return train(None, blob, Config(features=tuple("abcdef")))


@pytest.fixture(scope="session")
def second(first: Version, blob: Array) -> Version:
    """Return the next version: another regime, ten deviations away, learned by replay."""
    return train(first, blob + 10 * blob.std(axis=0), Config(features=tuple("abcdef")))
