"""The kind `mahalanobis`: Gaussians that share one covariance; see `tied_gaussians`."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.parts.mixture import Mixture
from models.parts.network import Identity, Shape
from models.parts.tied_gaussians import LABELS, MahalanobisScore, TiedGaussians
from models.scores.by_name import Score
from models.version.imputation import Fill
from models.version.kind import Kind, VersionParts
from models.version.spec import Lengths, Specs, labels, mixture

WIDEST = 1e3  # the largest factor of a scaled covariance: within it the inverse stays finite


class Mahalanobis:
    """Regimes of the scaled vectors; a vector is its own code."""

    network = Identity
    mixture = TiedGaussians
    labels = LABELS

    def faults(self, shape: Shape) -> Iterator[tuple[str, bool]]:
        """Yield each possible fault of the network's shape, and whether it is absent."""
        yield "config.kind is not the network's", shape.likelihood == "identity"
        yield "shape.latent: not shape.dimension", shape.latent == shape.dimension
        yield "shape.hidden: not empty", shape.hidden == ()

    def tensors(self, shape: Shape, score: str, rows: Lengths) -> Specs:
        """Return the specs of its mixture and of the labels of its regimes."""
        del score
        regimes = labels(rows["latents.weights"])
        return {**mixture(shape, rows, 1, WIDEST), f"memory.{LABELS}": regimes}

    def prepare(self, parts: VersionParts, score: str) -> dict[str, Array]:
        """Return nothing: this kind has one score, which needs no arrays."""
        del parts, score
        return {}

    def scorer(self, parts: VersionParts) -> Score:
        """Return the score: the distance to the nearest regime."""
        return MahalanobisScore(_tied(parts))

    def fill(self, parts: VersionParts, drawn: Callable[[], Array]) -> Fill:
        """Return a function that fills gaps with the conditional mean in the nearest regime."""
        del drawn
        return _tied(parts).fill

    def codes(self, parts: VersionParts) -> Mixture:
        """Return the regimes; the config's `replay` has no effect."""
        return parts.latents

    def classify(
        self, parts: VersionParts, x: Array, labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the label of the regime with the largest A f - B + log n_c."""
        return labels[parts.latents.assign(x)]


def _tied(parts: VersionParts) -> TiedGaussians:
    assert isinstance(parts.latents, TiedGaussians)
    return parts.latents


KIND: Kind = Mahalanobis()
