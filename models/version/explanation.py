"""How much each of a client's columns contributes to a score."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.context import Context
from models.parts.calibration import representable
from models.version.judgement import Attribution


class ScoreShares(NamedTuple):
    """Values, shares of the score in nats, and expected values, (n, d) each.

    A missing value has the share -inf.
    """

    values: NDArray[Any]
    shares: NDArray[Any]
    expected: NDArray[Any]


UNKNOWN = "unknown"  # stands for a word that was never learned


class CategoryWords(NamedTuple):
    """The words of each category by their codes; `read` finds the words of other codes."""

    words: Mapping[str, Mapping[float, str]]
    read: Callable[[float], str | None] | None = None

    def value(self, column: str, value: float) -> float | str:
        """Return a column's value: for a category, its word."""
        known = self.words.get(column)
        if known is None:
            return value
        return known.get(value) or (self.read and self.read(value)) or UNKNOWN


def largest_contributions(
    score_shares: ScoreShares, names: Sequence[str], k: int, words: CategoryWords
) -> list[list[Attribution]]:
    """Return each row's k largest shares, the largest first, with the columns' names (d,).

    For a column among `words`, value and expected value are words.
    """
    values, shares, expected = score_shares
    largest = np.argsort(-shares, axis=1, kind="stable")[:, :k]
    return [
        [
            Attribution(
                names[j],
                float(representable(shares[i, j])),
                words.value(names[j], float(values[i, j])),
                words.value(names[j], float(expected[i, j])),
            )
            for j in row
            if shares[i, j] > -np.inf
        ]
        for i, row in enumerate(largest)
    ]


def by_column(
    context: Context, numbers: NDArray[np.bool_], by_feature: ScoreShares, distances: NDArray[Any]
) -> ScoreShares:
    """Return the shares of the columns, (n, d), from features derived by a context, (n, w).

    `by_feature` has the shares of columns already, as `Context.owners` numbers them, but the values
    of features. A column may have two features: its value and its deviation. The one with the
    larger of the `distances` (n, w) from the expected value, in scaled units, gives the column's
    expected value. The calendar is not a client's column, so its share is left out.
    """
    n, d = len(by_feature.values), len(numbers)
    values, expected = (np.full((n, d), np.nan) for _ in range(2))
    largest = np.full((n, d), -np.inf)
    for feature, (column, derived) in enumerate(context.origins(numbers)):
        if column < 0:
            continue
        feature_values, feature_expected = (
            part[:, feature].astype(np.float64) for part in (by_feature.values, by_feature.expected)
        )
        if derived == "deviation" and "value" in context.derive:
            feature_expected = values[:, column] - (feature_values - feature_expected)
        else:
            values[:, column] = feature_values
        larger = distances[:, feature] > largest[:, column]
        expected[larger, column] = feature_expected[larger]
        largest[larger, column] = distances[larger, feature]
    return ScoreShares(values, by_feature.shares[:, :d], expected)
