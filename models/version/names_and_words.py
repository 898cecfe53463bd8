"""A version's features by name, and the words of its categories."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from models.categories import code_of
from models.config import Config
from models.version.explanation import CategoryWords


class NamesAndWords:
    """Maps features to their names, and codes to their words."""

    config: Config

    @property
    def dimension(self) -> int:
        """The number d of features of a vector; a category counts as one."""
        raise NotImplementedError

    @property
    def features(self) -> tuple[str, ...]:
        """The features' names, with derived features; column numbers if no names were given."""
        return self.config.feature_names(self.dimension)

    @cached_property
    def words(self) -> dict[str, dict[float, str]]:
        """The words of each category by their codes."""
        return {
            column.name: {code_of(word): word for word in column.values or ()}
            for column in self.config.columns or ()
            if column.type == "category"
        }

    def rows_with_words(
        self, X: NDArray[Any], read: Callable[[float], str | None] | None = None
    ) -> list[list[Any]]:
        """Return the values of rows X (n, d), with words in place of codes.

        `read` finds words that this version never learned.
        """
        rows: list[list[Any]] = X.tolist()
        names, words = self.features, CategoryWords(self.words, read)
        for place in self.config.categories(self.dimension):
            for row in rows:
                row[place] = words.value(names[place], row[place])
        return rows
