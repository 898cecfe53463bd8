"""Adam's step (Kingma & Ba, Adam: a method for stochastic optimization, 2015), and nothing else.

`torch.optim.Adam` loads torch's compiler when it is constructed, which takes longer than many
trainings. Its bookkeeping takes as long as one step of a small network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """Updates parameters from their `grad` in one fused pass."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step with the learning rate `rate`; every parameter must have a gradient."""
        for count in self._steps:
            count.add_(1.0)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        torch._fused_adam_(
            self._parameters, gradients, self._means, self._squares, [], self._steps,
            lr=rate, beta1=BETAS[0], beta2=BETAS[1], weight_decay=0.0, eps=EPSILON,
            amsgrad=False, maximize=False,
        )  # fmt: skip
