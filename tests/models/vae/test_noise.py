"""The noise of a Gaussian likelihood."""

import numpy as np
import torch

from models import Config, Model, train
from models.parts.network import Shape
from models.parts.statistics import auroc
from models.vae.noise import RISE, RunningNoise
from models.vae.vae import VAE


def test_the_noise_is_the_mean_of_the_squares() -> None:
    """The noise is the mean square, at least the floor; later it rises by RISE a step at most."""
    vae = VAE(Shape(2, 1, (4,), "gaussian"))
    squares = torch.tensor([[[0.25, 0.0]]])
    RunningNoise(vae, warm=False).update(squares)
    np.testing.assert_allclose(vae.noise.detach()[0, 0], [np.log(0.25), -12.0], rtol=1e-5)
    running = RunningNoise(vae, warm=True)
    running.update(4.0 * squares)
    np.testing.assert_allclose(vae.noise[0, 0, 0].item(), np.log(0.25) + RISE, rtol=1e-4)
    for _ in range(500):
        running.update(4.0 * squares)
    np.testing.assert_allclose(vae.noise.detach()[0, 0, 0], 0.0, atol=0.01)


def test_a_noise_that_is_frozen_stays() -> None:
    """The noise stays if a strategy freezes it, like every other parameter."""
    vae = VAE(Shape(2, 1, (4,), "gaussian"))
    vae.noise.requires_grad = False
    RunningNoise(vae, warm=False).update(torch.full((1, 1, 2), 9.0))
    assert not vae.noise.any()


def test_a_difference_of_nearly_equal_sensors_is_found() -> None:
    """A large difference of nearly equal sensors is found, and so is a constant that moves."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(1, 6))

    def sensor_rows(n: int) -> np.ndarray:
        X = rng.normal(size=(n, 1)) @ causes + 0.1 * rng.normal(size=(n, 6))
        X[:, 1] = X[:, 0] + 0.01 * rng.normal(size=n)
        return np.column_stack([X, np.full(n, 0.1)])

    version = train(None, sensor_rows(700), Config(score="elbo", model=Model(epochs=200)))
    normals, separated, moved = sensor_rows(300), sensor_rows(300), sensor_rows(300)
    separated[:, 1] += 0.2 * rng.choice([-1, 1], 300)
    moved[:, 6] = rng.uniform(0.101, 0.15, 300)
    assert auroc(version.score(normals), version.score(separated)) > 0.9
    assert auroc(version.score(normals), version.score(moved)) > 0.99
    assert version.is_anomaly(moved).mean() > 0.99
    assert version.is_anomaly(normals).mean() < 0.05
