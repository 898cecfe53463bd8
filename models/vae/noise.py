"""The noise of a Gaussian likelihood, set to its optimum instead of learned by gradient."""

import torch
from torch import Tensor

from models.vae.vae import VAE

RATE = 0.02  # of a step in the running mean: it looks back over fifty
# The most that a log variance rises in a step of a later training. A new regime fits badly at
# first: a noise that rose with it at once would blur the old regimes meanwhile.
RISE = 0.01


class RunningNoise:
    """Each feature's log variance: that of the running mean of its squared residuals.

    It is where the likelihood's gradient is zero. An optimiser that walks there at its own rate
    arrives late where residuals are small: what hardly varies then hides in noise it never had.
    """

    def __init__(self, vae: VAE, *, warm: bool) -> None:
        self._noise, self._floor = vae.noise, vae.shape.noise_floor
        self._numbers = vae.shape.numbers
        self._mean = vae.noise.detach()[..., : self._numbers].exp()
        self._rate, self._rise = (RATE, RISE) if warm else (1.0, float("inf"))

    @torch.no_grad()
    def update(self, squares: Tensor) -> None:
        """Take in a step's mean squared residuals of the numbers, (M, 1, m)."""
        self._mean.lerp_(squares, self._rate)
        self._rate = max(RATE, self._rate / (1.0 + self._rate))
        if self._noise.requires_grad:
            wanted = torch.log(self._mean).clamp_(min=self._floor)
            noise = self._noise.data[..., : self._numbers]
            torch.minimum(wanted, noise + self._rise, out=noise)
