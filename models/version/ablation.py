"""Which features a score is owed to: what it would be with each of them as expected.

A feature's share of the score, as the score itself can tell it, blames what the network cannot
follow: a value far away in one feature moves what is expected of all others. So each feature that
may be to blame is taken away, filled in from the others as a missing value is
(`models.version.imputation`), and the vector is scored anew. What the score falls by is owed to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.scores.by_name import Score, in_blocks
from models.version.imputation import Fill

SUSPECTS = 16  # features tried by their share of the score, and as many by how far out they are
CELLS = 2**20  # numbers in the vectors that are filled in at once: 4 MiB


class Ablated(NamedTuple):
    """For rows of suspects (n, c): their columns, what the score falls by, what was expected."""

    columns: NDArray[np.int64]
    falls: Float64
    expected: Array


def suspects(x: Array, shares: Float64, drawn: Array) -> NDArray[np.int64]:
    """Return the columns of each row of x (n, d), scaled, that its score may be owed to, (n, c).

    Those with the largest shares (n, d), then those furthest from what is drawn (m, d).
    """
    d = x.shape[1]
    if d <= 2 * SUSPECTS:
        return np.broadcast_to(np.arange(d), x.shape)
    spread = np.maximum(drawn.std(axis=0), 1e-6)
    outlying = np.abs(x - drawn.mean(axis=0)) / spread
    first = np.argsort(-shares, axis=1, kind="stable")[:, :SUSPECTS]
    np.put_along_axis(outlying, first, -1.0, axis=1)
    then = np.argsort(-outlying, axis=1, kind="stable")[:, :SUSPECTS]
    return np.concatenate([first, then], axis=1)


def ablate(
    x: Array, columns: NDArray[np.int64], fill: Fill, score: Callable[[Array], Float64]
) -> Ablated:
    """Return what each of `columns` (n, c) adds to the score of its row of x (n, d), scaled."""
    n, c = columns.shape
    falls, expected = np.empty((n, c)), np.empty((n, c), np.float32)
    step = max(1, CELLS // (c * x.shape[1]))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        whole, tried = x[rows], columns[rows]
        places = np.arange(tried.size), tried.ravel()
        without = np.repeat(whole, c, axis=0)
        without[places] = np.nan
        without = fill(without)
        expected[rows] = without[places].reshape(tried.shape)
        falls[rows] = score(whole)[:, None] - score(without).reshape(tried.shape)
    return Ablated(columns, falls, expected)


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains a score: a version's, which fills gaps and draws vectors `drawn` (m, d), scaled."""

    score: Score
    fill: Fill
    drawn: Array

    def __call__(self, x: Array, seen: NDArray[np.bool_]) -> tuple[Float64, Array]:
        """Return what each feature of x (n, d), scaled, adds to the score, and what it should be.

        (n, d) each, in nats and in scaled units. What was not `seen` (n, d), and what is not among
        the suspects, adds -inf.
        """
        shares = np.where(seen, self.score.explain(x)[0], -np.inf)
        columns = suspects(x, shares, self.drawn)
        found = ablate(x, columns, self.fill, lambda rows: in_blocks(self.score, rows))
        rows = np.arange(len(x))[:, None]
        contributions, expected = np.full(x.shape, -np.inf), x.copy()
        contributions[rows, columns] = found.falls
        expected[rows, columns] = found.expected
        return np.where(seen, contributions, -np.inf), expected
