"""A kind of model: all in which a version of one kind differs from those of another."""

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


class Parts(Protocol):
    """The parts of a version that its kind reads; see `Version`."""

    @property
    def config(self) -> Config:
        """The config that it was learned with, or is used with now."""

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
        """Where it comes from."""

    @property
    def memory(self) -> Mapping[str, Array]:
        """What its kind or strategy must know at the next training."""

    @property
    def scoring(self) -> Mapping[str, Array]:
        """What its score needs."""


class Kind(Protocol):
    """What a kind of model says and does where versions serve; x are scaled vectors (n, d)."""

    @property
    def network(self) -> type[Network]:
        """What its network is built as, from a shape and tensors."""

    @property
    def mixture(self) -> type[Mixture]:
        """What the mixture of its codes is built as."""

    @property
    def labels(self) -> str:
        """The tensor of `memory` that has the labels that `classify` chooses from."""

    def consistent(self, shape: Shape) -> Iterator[tuple[str, bool]]:
        """Yield what a network's shape must be, and whether it is."""

    def tensors(self, shape: Shape, score: str, rows: Lengths) -> Specs:
        """Return the tensors of `latents`, `memory` and `scoring` that only this kind has."""

    def prepare(self, parts: Parts, score: str) -> dict[str, Array]:
        """Return what the score of this name needs beside network and mixture."""

    def scorer(self, parts: Parts) -> Score:
        """Return the score that the config names."""

    def fill(self, parts: Parts, drawn: Callable[[], Array]) -> Fill:
        """Return what fills gaps; `drawn` returns normals (m, d) as the version draws them."""

    def codes(self, parts: Parts) -> Mixture:
        """Return the mixture that the codes of drawn vectors come from."""

    def classify(self, parts: Parts, x: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the label of each row's class, (n,), one of `labels` (C,)."""


def module_of(name: str) -> Any:
    """Return the module of the kind of this name.

    It is imported when it is first asked for: a kind may import whatever a version is made of.
    """
    return import_module(KINDS[name].module)


def kind_of(name: str) -> Kind:
    """Return the kind of this name, one of `KINDS`."""
    kind: Kind = module_of(name).KIND
    return kind
