"""The distance to the nearest generated vectors as a score."""

import numpy as np

from models.arrays import Array, Float64
from models.parts.calibration import representable
from models.parts.network import Network
from models.scores.generated_bank import Bank

NEIGHBOURS = 10


class Neighbours:
    """`neighbours`: the distance to the tenth nearest reconstruction of a generated vector.

        || x - b_(10) ||,   b_i = f(z_i),   z_i = m(g_i),   g_i drawn from the generator

    The k-nearest-neighbour distance (Ramaswamy et al., 2000) is one of the best detectors if it
    keeps all data. Here m = 10,000 generated vectors replace the data. A score costs m d
    multiplications, like a dense layer of m units. Distances are in scaled units.
    """

    def __init__(self, network: Network, codes: Array) -> None:
        self._bank = Bank(network.decode(codes))

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        return representable(self._bank.neighbours(x, NEIGHBOURS)[1][:, -1])

    def explain(self, x: Array) -> tuple[Float64, Array]:
        """Return each feature's squared distance from its neighbours' mean, and that mean."""
        expected = self._bank[self._bank.neighbours(x, NEIGHBOURS)[0]].mean(axis=1)
        return np.square(x.astype(np.float64) - expected), expected
