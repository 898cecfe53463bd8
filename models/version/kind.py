"""A kind of model: everything in which versions of different kinds differ."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.config import Config
from models.kind_table import KINDS
from models.parts.lineage import Lineage
from models.parts.mixture import Mixture
from models.parts.network import Network, Shape
from models.scores.by_name import Score
from models.version.imputation import Fill
from models.version.spec import Lengths, Specs


class VersionParts(Protocol):
    """The parts of a version that its kind reads; see `Version`."""

    @property
    def config(self) -> Config:
        """The config with which it was learned, or is used now."""

    @property
    def network(self) -> Network:
        """The network."""

    @property
    def latents(self) -> Mixture:
        """The mixture of its codes."""

    @property
    def kept(self) -> Array:
        """Real vectors that it keeps, scaled (m, d)."""

    @property
    def lineage(self) -> Lineage:
        """How it was made."""

    @property
    def memory(self) -> Mapping[str, Array]:
        """The arrays that its kind or strategy needs at the next training."""

    @property
    def scoring(self) -> Mapping[str, Array]:
        """The arrays that its score needs."""


class Kind(Protocol):
    """The functions of a kind of model that serving uses; x are scaled vectors (n, d)."""

    @property
    def network(self) -> type[Network]:
        """The class of its network, which is built from a shape and tensors."""

    @property
    def mixture(self) -> type[Mixture]:
        """The class of the mixture of its codes."""

    @property
    def labels(self) -> str:
        """The name of the tensor in `memory` with the labels for `classify`."""

    def faults(self, shape: Shape) -> Iterator[tuple[str, bool]]:
        """Yield each possible fault of a network's shape, and whether it is absent."""

    def tensors(self, shape: Shape, score: str, rows: Lengths) -> Specs:
        """Return the specs of this kind's own tensors in `latents`, `memory` and `scoring`."""

    def prepare(self, parts: VersionParts, score: str) -> dict[str, Array]:
        """Return the arrays that the score of this name needs beside network and mixture."""

    def scorer(self, parts: VersionParts) -> Score:
        """Return the score that the config names."""

    def fill(self, parts: VersionParts, drawn: Callable[[], Array]) -> Fill:
        """Return a function that fills gaps; `drawn` returns generated normals (m, d)."""

    def codes(self, parts: VersionParts) -> Mixture:
        """Return the mixture from which the codes of drawn vectors come."""

    def classify(
        self, parts: VersionParts, x: Array, labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the label of each row's class, (n,), one of `labels` (C,)."""


def kind_of(name: str) -> Kind:
    """Return the kind of this name, one of `KINDS`.

    Its module is imported on the first call, because a kind may import all parts of a version.
    """
    return import_module(KINDS[name].module).KIND


def learner_of(name: str) -> Any:
    """Return the function `learn` of the kind of this name, a `models.training.learner.Learn`."""
    return import_module(KINDS[name].learner).learn
