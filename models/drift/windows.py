"""Counts of the latest rows in two windows; the older window is dropped as a whole."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 1000  # rows in each of the two windows, the latest and the one before it


class Windows:
    """Counts of one shape over the latest rows: at least `ROWS` of them, at most twice as many."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._older = np.zeros(shape, np.int64)
        self._newer = np.zeros(shape, np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The counts of both windows."""
        return self._older + self._newer

    def update(self, counts: NDArray[np.int64]) -> None:
        """Add counts of live rows: (B,), or (d, B) of d features that each count every row.

        Counts of another shape belong to another version and are ignored.
        """
        if counts.shape != self._newer.shape:
            return
        self._newer = self._newer + counts
        if np.atleast_2d(self._newer)[0].sum() >= ROWS:
            self._older, self._newer = self._newer, np.zeros_like(self._newer)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts of both windows."""
        return {"older": self._older, "newer": self._newer}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_dict`'s result."""
        older, newer = np.asarray(state["older"]), np.asarray(state["newer"])
        if older.shape == newer.shape == self._newer.shape:
            self._older, self._newer = older.astype(np.int64), newer.astype(np.int64)
