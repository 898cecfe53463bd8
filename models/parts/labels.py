"""Labelled vectors, for a threshold policy and for the gate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Vectors (n, d) that people labelled, in the client's units, and which are anomalous, (n,)."""

    vectors: Array
    anomalous: NDArray[np.bool_]
