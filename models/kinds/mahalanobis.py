"""The kind `mahalanobis`: Gaussians with one covariance between them; see `tied_gaussians`."""

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.config import Config
from models.parts.mixture import Mixture
from models.parts.network import Identity, Shape
from models.parts.tied_gaussians import LABELS, Distance, Tied
from models.scores.by_name import Score
from models.version.imputation import Fill
from models.version.kind import Kind, Parts
from models.version.spec import Lengths, Specs, labels, mixture
from models.version.version import Version

if TYPE_CHECKING:  # an API process loads nothing of the training
    from models.training.learner import Progress, Weights
    from models.training.prepared import Prepared

WIDEST = 1e3  # a covariance of scaled vectors: so bounded, its inverse is a number too


class Mahalanobis:
    """Regimes over the scaled vectors themselves, which are their own codes."""

    network = Identity
    mixture = Tied
    labels = LABELS

    def consistent(self, shape: Shape) -> Iterator[tuple[str, bool]]:
        """Yield what a network's shape must be, and whether it is."""
        yield "config.kind is not the network's", shape.likelihood == "identity"
        yield "shape.latent", shape.latent == shape.dimension
        yield "shape.hidden", shape.hidden == ()

    def tensors(self, shape: Shape, score: str, rows: Lengths) -> Specs:
        """Return those of its mixture, and of the labels of its regimes."""
        del score
        regimes = labels(rows["latents.weights"])
        return {**mixture(shape, rows, 1, WIDEST), f"memory.{LABELS}": regimes}

    def prepare(self, parts: Parts, score: str) -> dict[str, Array]:
        """Return nothing: it has one score, whatever it is called."""
        del parts, score
        return {}

    def scorer(self, parts: Parts) -> Score:
        """Return the distance to the nearest regime."""
        return Distance(_tied(parts))

    def fill(self, parts: Parts, drawn: Callable[[], Array]) -> Fill:
        """Return a filler of gaps: the conditional mean in the nearest regime."""
        del drawn
        return _tied(parts).fill

    def codes(self, parts: Parts) -> Mixture:
        """Return the regimes, whatever the config's replay says."""
        return parts.latents

    def classify(self, parts: Parts, x: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the label of the regime with the largest A f - B + log n_c."""
        chosen: NDArray[np.int64] = labels[parts.latents.assign(x)]
        return chosen


def _tied(parts: Parts) -> Tied:
    assert isinstance(parts.latents, Tied)
    return parts.latents


KIND: Kind = Mahalanobis()


def learn(
    given: "Prepared", config: Config, weights: "Weights"
) -> "Generator[Progress, None, Version]":
    """Return the version that knows the regimes of `given` too; see `Learn`."""
    from models.training.mahalanobis import learn  # torch, for training alone

    return (yield from learn(given, config, weights))
