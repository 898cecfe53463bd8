"""Reconstruction error in the hidden layers as a score (RaPP)."""

import numpy as np

from models.arrays import Array, Float64
from models.parts.calibration import representable
from models.parts.network import Network
from models.scores.elbo import Scorer


class Hidden(Scorer):
    """`hidden`: how far a vector's path through the encoder is from its reconstruction's.

    Kim et al., RaPP: novelty detection with reconstruction along projection pathway, 2020, the
    simple aggregation: with h_0(x) = x and h_i(x) the i-th hidden layer of the encoder,

        sum_i || h_i(x) - h_i(f(m(x))) ||^2

    It costs one pass through the network, and two through the encoder's hidden layers. The unit is
    scaled units squared.
    """

    def __init__(self, network: Network) -> None:
        super().__init__("reconstruction", network)

    def __call__(self, x: Array) -> Float64:
        """Return the score of each scaled vector of x (n, d), (n,)."""
        y = self._network.decode(self._network.encode(x)[0])
        total = np.vecdot(x - y, x - y).astype(np.float64)
        for weight, floor in self._encoder[:-1]:
            # Both sides lack the layer's bias (see `layers`), so it cancels in the difference.
            x, y = (np.maximum(each @ weight, floor) for each in (x, y))
            total += np.vecdot(x - y, x - y)
        return representable(total)
