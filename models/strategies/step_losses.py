"""The losses and the memory that a strategy may add to a training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.arrays import Array
from models.vae.vae import VAE


@dataclass(frozen=True, slots=True)
class TrainingSetting:
    """The setting of a training: M networks, the mixing weights, the batch size, the seed."""

    vae: VAE
    w_prev: float
    w_new: float
    batch_size: int
    seed: int

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.vae.noise.device

    @property
    def odds(self) -> float:
        """The weight of the past's loss relative to the loss of a new vector."""
        return self.w_prev / self.w_new


StepLoss = Callable[[Tensor, int, torch.Generator], Tensor]
"""Takes a batch (M, n, d), its number of old rows, which come first, and a random generator.

Returns a loss for each network, (M,).
"""

ExtraLoss = Callable[[TrainingSetting], StepLoss]

Remember = Callable[[TrainingSetting, Array, Mapping[str, Array]], dict[str, Array]]
"""Takes the setting, new scaled vectors (n, d) and the previous memory; returns named arrays."""
