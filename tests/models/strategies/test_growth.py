import numpy as np

from models import Config, Model, Version, train
from models.arrays import Array
from models.parts.network import Network, Shape
from models.strategies.growth import compact, grow
from models.vae.vae import VAE


def network(seed: int = 0) -> Network:
    """Return a network whose encoder and decoder have hidden layers of 16 and 24."""
    return VAE(Shape(5, 3, (16, 24), "gaussian"), seed=seed).network(0)


def test_growing_hardly_changes_the_outputs() -> None:
    """Each hidden layer grows by an eighth, and outputs change by less than a hundredth."""
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    before, after = network(), grow(network(), seed=1)
    assert after.shape.hidden == (18, 27)
    assert {k: t.shape for k, t in after.tensors.items()} == after.shape.tensors()
    codes = before.encode(x)[0]
    np.testing.assert_allclose(after.encode(x)[0], codes, atol=0.02 * np.abs(codes).max() + 1e-3)


def test_dropping_idle_units_changes_no_output() -> None:
    """Units that never fire are dropped, and the outputs on these vectors stay the same."""
    x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    idle = network()
    for name, count in (("encoder.0", 4), ("decoder.1", 6), ("encoder.1", 5), ("decoder.0", 5)):
        idle.tensors[f"{name}.bias"][:, :count] = -100.0
    small = compact(idle, x)
    assert small.shape.hidden[0] <= 12
    assert small.shape.hidden[1] <= 19
    assert {k: t.shape for k, t in small.tensors.items()} == small.shape.tensors()
    for mine, theirs in zip(small.losses(x), idle.losses(x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_detector_grows_with_its_regimes(blob: Array) -> None:
    """Each experience widens the layers, compaction bounds them, and the artifact has them."""
    config = Config(strategy="expand", model=Model(epochs=3))
    v1 = train(None, blob, config)
    v2 = train(v1, blob + 10 * blob.std(axis=0), config)
    widths = v1.network.shape.hidden[0], v2.network.shape.hidden[0]
    assert widths[0] <= widths[1] <= widths[0] * 1.125 + 1
    assert Version.from_bytes(v2.to_bytes()).sha256 == v2.sha256
