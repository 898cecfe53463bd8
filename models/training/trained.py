"""The result of a training, from which a version is made."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.config import Config
from models.parts.network import Network
from models.parts.scaler import Scaler
from models.strategies.past import Past
from models.training.plan import Plan
from models.version.version import Version


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training: M networks, their inputs and settings, and the loss curve.

    `new` (n, d) is in the client's units. `x` is scaled and starts with the old vectors that the
    strategy kept, if any. `labelled` are the indices in `x` of rows that a person labelled normal.
    """

    networks: list[Network]
    plan: Plan
    past: Past
    previous: Version | None
    config: Config
    scaler: Scaler
    new: Array
    x: Array
    curve: list[float]
    memory: dict[str, Array]
    labelled: NDArray[np.intp]
