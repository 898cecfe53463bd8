"""What each kind of model gives a training: a function that learns, step by step."""

from collections.abc import Generator, Mapping
from typing import NamedTuple, Protocol

from models.config import Config
from models.training.prepared import Prepared
from models.version.version import Version

Weights = str | Mapping[str, float] | None
"""What replaces the config's mixing weights for one training, if anything."""


class Progress(NamedTuple):
    """How far a training is: `fraction` in [0, 1] of its steps, and the latest loss in nats.

    And that of network 0 on old and on new vectors, None where the step had none of them.
    """

    fraction: float
    loss: float
    loss_old: float | None = None
    loss_new: float | None = None


class Learn(Protocol):
    """The function `learn` in a kind's module."""

    def __call__(
        self, given: Prepared, config: Config, weights: Weights
    ) -> Generator[Progress, None, Version]:
        """Return the version learned from `given` on top of its previous one.

        It yields after every step; raises VectorError for vectors that the kind cannot take and
        TrainingError when training comes to nothing.
        """
