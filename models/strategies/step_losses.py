"""What a strategy may add to the loss of every gradient step, and to the memory of a version."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.arrays import Array
from models.vae.vae import VAE


@dataclass(frozen=True, slots=True)
class Setting:
    """What a training is about to do: M networks, the mixing weights, the batch size, the seed."""

    vae: VAE
    w_prev: float
    w_new: float
    batch_size: int
    seed: int

    @property
    def odds(self) -> float:
        """How many times as much as a new vector's loss the past's weighs."""
        return self.w_prev / self.w_new


StepLoss = Callable[[Tensor, int, torch.Generator], Tensor]
"""(batch (M, n, d), how many of its first rows are old, randomness) -> a loss per network, (M,)."""

ExtraLoss = Callable[[Setting], StepLoss]

Remember = Callable[[Setting, Array, Mapping[str, Array]], dict[str, Array]]
"""(setting, new vectors (n, d) scaled, previous memory) -> memory: named arrays."""
