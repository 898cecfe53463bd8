"""The noise of a Gaussian likelihood; it is set to its optimum, not learned by gradient."""

import torch
from torch import Tensor

from models.vae.vae import VAE

RATE = 0.02  # the weight of a step in the running mean, which covers about fifty steps
# The largest rise of a log variance per step of a later training. A new regime fits badly at first.
# If the noise rose at once, it would blur the old regimes.
RISE = 0.01


class RunningNoise:
    """Each feature's log variance: the log of the running mean of its squared residuals.

    At this value the likelihood's gradient is zero. An optimiser reaches it too late if residuals
    are small: the noise is then too large and hides small deviations.
    """

    def __init__(self, vae: VAE, *, warm: bool) -> None:
        self._noise, self._floor = vae.noise, vae.shape.noise_floor
        self._numbers = vae.shape.numbers
        self._mean = vae.noise.detach()[..., : self._numbers].exp()
        self._rate, self._rise = (RATE, RISE) if warm else (1.0, float("inf"))

    @torch.no_grad()
    def update(self, squares: Tensor) -> None:
        """Add a step's mean squared residuals of the numbers, (M, 1, m)."""
        self._mean.lerp_(squares, self._rate)
        self._rate = max(RATE, self._rate / (1.0 + self._rate))
        if self._noise.requires_grad:
            best = torch.log(self._mean).clamp_(min=self._floor)
            noise = self._noise.data[..., : self._numbers]
            torch.minimum(best, noise + self._rise, out=noise)
