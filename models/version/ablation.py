"""Attribution by ablation: how much the score falls if a feature takes its expected value.

The score's own sum over features can blame the wrong feature: an extreme value in one feature
changes the expected values of all others. Therefore each suspect feature is removed, filled in from
the others like a missing value (`models.version.imputation`), and the vector is scored again. The
fall of the score is the feature's contribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Float64
from models.scores.by_name import Score, score_rows
from models.scores.elbo import row_blocks
from models.version.imputation import Fill

# So many columns are tried by their share of the score, and as many by their distance.
SUSPECTS = 16
CELLS = 2**20  # the most numbers in the vectors filled in at once: 4 MiB

T = TypeVar("T", bound=np.generic)


class AblationResult(NamedTuple):
    """The tried columns and the fall of the score for each, (n, c); expected values, (n, d)."""

    columns: NDArray[np.int64]
    falls: Float64
    expected: Array


def suspects(
    x: Array, shares: Float64, drawn: Array, owners: NDArray[np.intp]
) -> NDArray[np.int64]:
    """Return the columns to try for each row of x (n, d), scaled, (n, c).

    This is for more than twice `SUSPECTS` columns; with fewer, all columns are tried. The columns
    with the largest `shares` (n, d) come first, then those furthest from the `drawn` vectors (m,
    d). A column may own several numbers: `owners` (d,) is the column of each number.
    """
    columns = int(owners.max()) + 1
    spread = np.maximum(drawn.std(axis=0), 1e-6)
    outlying = np.abs(x - drawn.mean(axis=0)) / spread
    if columns < x.shape[1]:
        shares, outlying = by_owner(shares, owners, "sum"), by_owner(outlying, owners, "max")
    by_share = np.argsort(-shares, axis=1, kind="stable")[:, :SUSPECTS]
    np.put_along_axis(outlying, by_share, -1.0, axis=1)
    by_distance = np.argsort(-outlying, axis=1, kind="stable")[:, :SUSPECTS]
    return np.concatenate([by_share, by_distance], axis=1)


def by_owner(
    values: NDArray[T], owners: NDArray[np.intp], how: Literal["sum", "max"]
) -> NDArray[T]:
    """Return the sum or the maximum of each column's own values among values (n, d)."""
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    join = np.add if how == "sum" else np.maximum
    return join.reduceat(values[:, order], starts, axis=1)


def ablate(
    x: Array,
    columns: NDArray[np.int64],
    owners: NDArray[np.intp],
    fill: Fill,
    score: Callable[[Array], Float64],
) -> AblationResult:
    """Return how much each of `columns` (n, c) adds to the score of its row of x (n, d), scaled.

    `expected` differs from x only in the numbers that those columns own.
    """
    n, c = columns.shape
    falls, expected = np.empty((n, c)), x.copy()
    step = max(1, CELLS // (c * x.shape[1]))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        whole, tried = x[rows], columns[rows]
        without = np.repeat(whole, c, axis=0)
        if len(owners) == owners.max() + 1:  # each column owns one number
            places = np.arange(tried.size), tried.ravel()
            without[places] = np.nan
            without = fill(without)
            np.put_along_axis(expected[rows], tried, without[places].reshape(tried.shape), axis=1)
        else:
            owned = owners == tried[:, :, None]  # (r, c, d)
            without[owned.reshape(without.shape)] = np.nan
            without = fill(without)
            row, column, number = np.nonzero(owned)
            expected[rows][row, number] = without.reshape(owned.shape)[row, column, number]
        falls[rows] = score(whole)[:, None] - score(without).reshape(tried.shape)
    return AblationResult(columns, falls, expected)


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains a version's score by ablation; `drawn` (m, d), scaled, are typical normals.

    `fill` fills in missing values. `owners` (d,) is the feature, one of w, of each number.
    """

    score: Score
    fill: Fill
    drawn: Array
    owners: NDArray[np.intp]

    def __call__(self, x: Array, seen: NDArray[np.bool_]) -> tuple[Float64, Array]:
        """Return each feature's contribution to the score of x, and its expected value.

        The contributions (n, w) are in nats, the expected values (n, d) in scaled units. A feature
        that was not `seen` (n, w), or is not among the suspects, has the contribution -inf.
        """
        owners = self.owners
        count = int(owners.max()) + 1
        if count <= 2 * SUSPECTS:
            columns = np.broadcast_to(np.arange(count), (len(x), count))
        else:
            columns = suspects(x, self._shares(x, seen), self.drawn, owners)
        ablation = ablate(x, columns, owners, self.fill, lambda rows: score_rows(self.score, rows))
        contributions = np.full(seen.shape, -np.inf)
        contributions[np.arange(len(x))[:, None], columns] = ablation.falls
        return np.where(seen, contributions, -np.inf), ablation.expected

    def _shares(self, x: Array, seen: NDArray[np.bool_]) -> Float64:
        """Return each feature's share by the score's own explanation, (n, d)."""
        shares_of_blocks = [self.score.explain(x[rows])[0] for rows in row_blocks(*x.shape)]
        shares = np.concatenate(shares_of_blocks or [np.empty(x.shape)])
        return np.where(seen[:, self.owners], shares, -np.inf)
