"""Which network's score of a row calibrates: that one's which left it out, or which serves.

A row that a network of a fold left out is scored by that network, though another one serves. For
rows that are like no other that is right. A value that comes again and again is another matter: the
network that serves saw it and will see it again, and what it gives that very value is no estimate.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import COMMON, Calibration, representable
from models.training.mixing import RARE


class Copies(NamedTuple):
    """Of each row of a training (n,): where the first one equal to it is, and how many are.

    Of `rows` in all.
    """

    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    rows: int

    @classmethod
    def of(cls, x: Array) -> "Copies":
        """Return those of the rows of x (n, d)."""
        _, first, of, counts = np.unique(
            x, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        of = of.reshape(len(x))
        return cls(first[of], counts[of], len(x))

    def of_rows(self, some: NDArray[np.int64]) -> "Copies":
        """Return what is known of the rows `some` (m,), given as indices into all rows."""
        return self._replace(first=self.first[some], counts=self.counts[some])

    @property
    def common(self) -> NDArray[np.bool_]:
        """Which rows are a value that makes up `COMMON` of all and more."""
        common: NDArray[np.bool_] = self.counts >= max(2.0, COMMON * self.rows)
        return common

    @property
    def distinct(self) -> int:
        """How many rows there are if copies count once, but common values each time."""
        once = self.first == np.arange(len(self.first))
        return int((once | self.common).sum())


def calibrating(own: Float64, serving: Float64, copies: Copies) -> Float64:
    """Return the scores (..., n) that calibrate rows which `copies` describes.

    `own` (..., n) are by the networks that left the rows out, `serving` (..., n) by the one that
    serves. A common value has the score that it will have. Of a copy the larger counts: its like
    was in one fold, so that it may come again as it is or not.
    """
    found = np.where(copies.counts > 1, np.maximum(own, serving), own)
    return np.where(copies.common, serving, found)


def disagreement(held_out: Float64, serving: Float64) -> float | None:
    """Return on which share of the rows the network that serves would alarm at 1 % asked.

    At the threshold that the scores `held_out` (n,) give, beside `serving` (n,) of the same rows;
    None where chance explains it. It learned the rows, so it should be less than asked.
    """
    calibration = Calibration(np.sort(representable(held_out)))
    at = calibration.threshold({"fpr": RARE}).value
    share = float((serving >= at).mean())
    expected = max(RARE, calibration.held(at).high)
    return share if share > expected else None
