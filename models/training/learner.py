"""The interface of a kind's function `learn`, which learns step by step."""

from collections.abc import Generator, Mapping
from typing import NamedTuple, Protocol

from models.config import Config
from models.training.prepared import PreparedExperience
from models.version.version import Version

Weights = str | Mapping[str, float] | None
"""Mixing weights that replace the config's in one training; None keeps the config's."""


class Progress(NamedTuple):
    """The progress of a training: `fraction` in [0, 1] of its time, and the latest loss in nats.

    `loss_old` and `loss_new` are the losses of network 0 on old and on new vectors; None if the
    step had no such vectors.
    """

    fraction: float
    loss: float
    loss_old: float | None = None
    loss_new: float | None = None


class Learn(Protocol):
    """The function `learn` of a kind; see `models.kind_table`."""

    def __call__(
        self, given: PreparedExperience, config: Config, weights: Weights
    ) -> Generator[Progress, None, Version]:
        """Return the version learned from `given` on top of its previous version.

        The generator yields after every step. It raises VectorError for vectors that the kind does
        not support, and TrainingError if the training fails.
        """
