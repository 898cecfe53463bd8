"""What stands for the past while an experience is learned: the strategies.

A strategy is a function of (previous version, config) that returns a `Past`; `PASTS` names them
all. The training loop reads the answer and knows nothing else of a strategy.
"""

from collections.abc import Callable
from dataclasses import dataclass

from models.config import Config
from models.network import Array
from models.version import Version


@dataclass(frozen=True, slots=True)
class Past:
    """The past as the training loop sees it.

    `generator`: the version old vectors are drawn from afresh in every epoch, None for none.
    `vectors`: real old vectors, scaled (m, d), learned again together with the new ones.
    `keeps`: whether the new version keeps the real vectors it learned from.
    """

    generator: Version | None = None
    vectors: Array | None = None
    keeps: bool = False

    @property
    def learned(self) -> int:
        """How many vectors the generator stands for."""
        return int(self.generator.lineage["learned"]) if self.generator else 0


def replay(previous: Version | None, config: Config) -> Past:
    """Draw old vectors from `generator = copy(previous)` and keep nothing real.

    Shin et al., Continual learning with deep generative replay, 2017; Wiewel & Yang, Continual
    learning for anomaly detection with variational autoencoder, 2019: solver and generator are
    one VAE. How the generator is drawn from is the config's `replay`.
    """
    return Past(generator=previous.with_config(config) if previous else None)


def finetune(previous: Version | None, config: Config) -> Past:
    """Go on from the previous weights with the new vectors alone: the lower bound."""
    del previous, config
    return Past()


def joint(previous: Version | None, config: Config) -> Past:
    """Keep every vector and learn all of them again from scratch: the upper bound."""
    del config
    return Past(vectors=previous.kept if previous else None, keeps=True)


PASTS: dict[str, Callable[[Version | None, Config], Past]] = {
    "replay": replay,
    "finetune": finetune,
    "joint": joint,
}
