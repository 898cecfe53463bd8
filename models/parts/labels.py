"""Labelled vectors that a threshold policy and the gate may use."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What people said of vectors (n, d), in the client's units: which are anomalous, (n,)."""

    vectors: Array
    anomalous: NDArray[np.bool_]
