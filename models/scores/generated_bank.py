"""A bank of generated vectors, and which of them are nearest to a vector.

The bank holds reconstructions of vectors drawn from the version's own generator; an artifact
keeps their codes alone.
"""

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.mixture import Mixture
from models.parts.network import Network

SIZE = 10_000  # of a tenth as many, images' neighbours are too far apart to tell
SPARE = 8  # candidates measured exactly beyond those asked for: the fast distance is a rough one
CELLS = 4_194_304  # distances held at once, 16 MiB


def generated_codes(network: Network, latents: Mixture, rng: np.random.Generator) -> Array:
    """Return the codes of generated vectors, (SIZE, k)."""
    return np.ascontiguousarray(network.encode(network.sample(latents.sample(SIZE, rng), rng))[0])


class Bank:
    """Vectors (m, d), scaled, that others are compared with."""

    def __init__(self, vectors: Array) -> None:
        # Squared distances are differences of large numbers: about the centre they are smallest.
        self._center = vectors.mean(axis=0)
        self._vectors = vectors - self._center
        self._squares = np.vecdot(self._vectors, self._vectors)

    def __getitem__(self, rows: NDArray[np.int64]) -> Array:
        """Return the vectors of an array of rows, (*rows.shape, d)."""
        found: Array = self._vectors[rows] + self._center
        return found

    def neighbours(self, x: Array, k: int) -> tuple[NDArray[np.int64], Float64]:
        """Return which k vectors are nearest to each row of x (n, d), and how far away.

        Both (n, k), the nearest first; distances in scaled units.
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
        few = min(k + SPARE, len(self._vectors))
        candidates = np.argpartition(rough, few - 1, axis=1)[:, :few]
        apart = x[:, None] - self._vectors[candidates]  # (n, few, d)
        squares = np.vecdot(apart, apart).astype(np.float64)
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        rows: NDArray[np.int64] = np.take_along_axis(candidates, order, axis=1)
        return rows, np.sqrt(np.take_along_axis(squares, order, axis=1))
