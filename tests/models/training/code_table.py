"""A table of codes: few pairs of codes occur together, and a tree of features knows which."""

import numpy as np

from models.arrays import Array


class CodeTable:
    """Draws rows of two related codes, a third code, and a number, (n, 4)."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self._partner = self.rng.permutation(40)

    def rows(self, n: int) -> Array:
        """Return n normals: a first code has three of forty second codes."""
        first = self.rng.integers(40, size=n)
        second = self._partner[(first + self.rng.integers(3, size=n)) % 40]
        columns = first, second, self.rng.integers(6, size=n), self.rng.normal(size=n)
        return np.stack(columns, axis=1).astype(np.float32)

    def mixed(self, n: int) -> Array:
        """Return n anomalies: normals whose second codes are permuted."""
        rows = self.rows(n)
        rows[:, 1] = self.rng.permutation(rows[:, 1])
        return rows
