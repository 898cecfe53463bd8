"""A bank of generated vectors, and a search for the nearest of them.

The bank holds reconstructions of vectors that the version's own generator drew. An artifact stores
only their codes.
"""

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.mixture import Mixture
from models.parts.network import Network

SIZE = 10_000  # with a tenth of them, the nearest neighbours of pictures are too far away
SPARE = 8  # extra candidates measured exactly, because the fast distance is only approximate
CELLS = 4_194_304  # the most distances held at once: 16 MiB


def generated_codes(network: Network, latents: Mixture, rng: np.random.Generator) -> Array:
    """Return the codes of generated vectors, (SIZE, k)."""
    return np.ascontiguousarray(network.encode(network.sample(latents.sample(SIZE, rng), rng))[0])


class Bank:
    """Vectors (m, d), scaled, with which others are compared."""

    def __init__(self, vectors: Array) -> None:
        # Squared distances are differences of large numbers; centring makes these numbers small.
        self._center = vectors.mean(axis=0)
        self._vectors = vectors - self._center
        self._squares = np.vecdot(self._vectors, self._vectors)

    def __getitem__(self, rows: NDArray[np.int64]) -> Array:
        """Return the vectors at the indices `rows`, (*rows.shape, d)."""
        return self._vectors[rows] + self._center

    def neighbours(self, x: Array, k: int) -> tuple[NDArray[np.int64], Float64]:
        """Return the indices and the distances of the k vectors nearest to each row of x (n, d).

        Both are (n, k), the nearest first. Distances are in scaled units.
        """
        step = max(1, CELLS // len(self._vectors))
        parts = [self._nearest(x[i : i + step], k) for i in range(0, max(1, len(x)), step)]
        rows, distances = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(distances)

    def _nearest(self, x: Array, k: int) -> tuple[NDArray[np.int64], Float64]:
        x = x - self._center
        rough = x @ self._vectors.T  # (n, m)
        rough *= np.float32(-2.0)
        rough += self._squares
        c = min(k + SPARE, len(self._vectors))
        candidates = np.argpartition(rough, c - 1, axis=1)[:, :c]
        offsets = x[:, None] - self._vectors[candidates]  # (n, c, d)
        squares = np.vecdot(offsets, offsets).astype(np.float64)
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        rows: NDArray[np.int64] = np.take_along_axis(candidates, order, axis=1)
        return rows, np.sqrt(np.take_along_axis(squares, order, axis=1))
