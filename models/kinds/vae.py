"""The kind `vae`: a variational autoencoder, with the mixture of its codes and a score by name."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.kinds import vae_tensors
from models.parts.fine_combinations import FineCombinations
from models.parts.mixture import Mixture
from models.parts.network import Network, Shape
from models.scores.by_name import Score, score_arrays, score_named
from models.version import classifier
from models.version.imputation import Fill, fill_by_reconstruction
from models.version.kind import Kind, VersionParts
from models.version.spec import Lengths, Specs


class Autoencoder:
    """A network that encodes vectors; scores, classes and filled values follow from the codes."""

    network = Network
    mixture = Mixture
    labels = classifier.LABELS

    def faults(self, shape: Shape) -> Iterator[tuple[str, bool]]:
        """Yield each possible fault of the network's shape, and whether it is absent."""
        yield "config.kind is not the network's", shape.likelihood in {"gaussian", "bernoulli"}
        yield "shape.latent: not 1 to 1024", 1 <= shape.latent <= 1024
        yield "shape.hidden: not 1 to 8 layers", 1 <= len(shape.hidden) <= 8
        # A growing network may exceed the 8,192 units that a config may ask for.
        units_fit = all(1 <= width <= 16_384 for width in shape.hidden)
        yield "shape.hidden: not 1 to 16384 units in a layer", units_fit

    def tensors(self, shape: Shape, score: str, rows: Lengths) -> Specs:
        """Return the specs of its mixture, solver, past weights and score."""
        return vae_tensors.specs(shape, score, rows)

    def prepare(self, parts: VersionParts, score: str) -> dict[str, Array]:
        """Return the arrays that the score of this name needs beside network and mixture."""
        return score_arrays(score, parts.network, parts.latents, parts.lineage.seed)

    def scorer(self, parts: VersionParts) -> Score:
        """Return the score that the config names."""
        needs = {**parts.memory, **parts.scoring}
        return score_named(parts.config.score, parts.network, parts.latents, needs)

    def fill(self, parts: VersionParts, drawn: Callable[[], Array]) -> Fill:
        """Return a function that fills gaps with the network's own reconstruction."""
        fine = FineCombinations.from_tensors("views.fine.", parts.scoring)
        return fill_by_reconstruction(parts.network, drawn(), fine)

    def codes(self, parts: VersionParts) -> Mixture:
        """Return the fitted mixture, or the prior if the config's `replay` draws from the prior."""
        if parts.config.replay.latents == "fitted":
            return parts.latents
        return Mixture.prior(parts.network.shape.latent)

    def classify(
        self, parts: VersionParts, x: Array, labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return each row's class by the solver; for `icarl`, by the nearest mean of exemplars."""
        codes = parts.network.encode(x)[0]
        if classifier.EXEMPLARS in parts.memory and "icarl" in parts.config.strategy.split("+"):
            kept_codes = parts.network.encode(parts.kept)[0]
            kept_labels = np.asarray(parts.memory[classifier.EXEMPLARS], np.int64)
            return classifier.nearest_mean(codes, kept_codes, kept_labels)
        return labels[classifier.class_probabilities(parts.memory, codes).argmax(axis=1)]


KIND: Kind = Autoencoder()
