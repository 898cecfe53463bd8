"""Chooses the score of each row that calibrates: a held-out score or the serving network's.

Usually the calibration uses a row's score under the network that left the row out, although another
network serves. This is right for a row that occurs once. For a value that recurs, the score under
the serving network is exact: that network has learned the value and will see it again.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.parts.calibration import COMMON, Calibration, representable
from models.training.mixing import RARE


class EqualRows(NamedTuple):
    """The equal rows of a training of `rows` rows.

    For each row, `first` (n,) is the index of the first equal row, and `counts` (n,) the number of
    equal rows.
    """

    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    rows: int

    @classmethod
    def of(cls, x: Array) -> "EqualRows":
        """Find the copies among the rows of x (n, d)."""
        _, first, group_of, counts = np.unique(
            x, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        group_of = group_of.reshape(len(x))
        return cls(first[group_of], counts[group_of], len(x))

    def of_rows(self, some: NDArray[np.int64]) -> "EqualRows":
        """Return the entries of the rows with indices `some` (m,)."""
        return self._replace(first=self.first[some], counts=self.counts[some])

    @property
    def common(self) -> NDArray[np.bool_]:
        """Mask of the rows whose value makes up at least the share `COMMON` of all rows."""
        return self.counts >= max(2.0, COMMON * self.rows)

    @property
    def distinct(self) -> int:
        """The number of rows, with copies counted once; common values are not copies."""
        once = self.first == np.arange(len(self.first))
        return int((once | self.common).sum())


def calibration_scores(own: Float64, serving: Float64, copies: EqualRows) -> Float64:
    """Return the scores (..., n) that calibrate the rows of `copies`.

    `own` (..., n) are the scores by the networks that left the rows out, `serving` (..., n) those
    by the serving network. A common value takes the serving score, which it will have again. A
    copied row takes the larger of both scores, because an equal row may or may not come again.
    """
    scores = np.where(copies.counts > 1, np.maximum(own, serving), own)
    return np.where(copies.common, serving, scores)


def disagreement(held_out: Float64, serving: Float64) -> float | None:
    """Return the share of learned rows above the threshold for 1 % of alarms; None if it is usual.

    The threshold follows from the scores `held_out` (n,). `serving` (n,) are the scores of the same
    rows under the serving network. That network learned the rows, so their share should be below
    1 %. The result is None if chance explains the share.
    """
    calibration = Calibration(np.sort(representable(held_out)))
    threshold = calibration.threshold({"fpr": RARE}).value
    share = float((serving >= threshold).mean())
    expected = max(RARE, calibration.false_alarm_rate(threshold).high)
    return share if share > expected else None
