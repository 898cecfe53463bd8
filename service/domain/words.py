"""The words of categories that this process has read recently, by their codes.

A code is a hash, so a word cannot be computed from its code. A version knows the words that it
learned. An alarm is often about a new word, and only the process that read the word knows it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import Config
from models.categories import code_of
from models.columns import MOST_VALUES, as_word
from models.version.explanation import UNKNOWN
from service.domain.detector_config import DetectorConfig

MOST = 100_000


class SeenWords:
    """Remembers up to MOST words by their codes, then forgets all. It is thread-safe."""

    def __init__(self) -> None:
        self._words: dict[float, str] = {}

    def code(self, value: str | float) -> float:
        """Return the code of a word, or of a whole number or a boolean as it is written."""
        word = value if isinstance(value, str) else as_word(value) or ""
        code = code_of(word)
        if code not in self._words:
            if len(self._words) >= MOST:
                self._words.clear()
            self._words[code] = word
        return code

    def word(self, code: float) -> str | None:
        """Return the word with this code, or None if the word was not read recently."""
        return self._words.get(code)

    def words_in(self, X: NDArray[np.float32], config: Config) -> dict[float, str]:
        """Return the words of all categories in rows X (n, w), by their codes."""
        places = config.categories(X.shape[1])
        codes = np.unique(X[:, list(places)]).tolist() if places else []
        return {code: word for code in codes if (word := self.word(code)) is not None}


def worded(
    config: DetectorConfig, X: NDArray[np.float32], words: Mapping[float, str]
) -> DetectorConfig:
    """Return the config with the words of the categories in X (n, w); `words` are by code."""
    columns = {column.name: column for column in config.columns or ()}
    of_features = config.feature_names(X.shape[1])
    for place in config.categories(X.shape[1]):
        column = columns[of_features[place]]
        learned_words = (words.get(code) for code in np.unique(X[:, place]).tolist())
        known = dict.fromkeys((*(column.values or ()), *(word for word in learned_words if word)))
        columns[column.name] = replace(column, values=tuple(known)[:MOST_VALUES] or None)
    return replace(config, columns=tuple(columns.values()))


def decode(rows: list[list[Any]], config: Config, words: Mapping[float, str]) -> list[list[Any]]:
    """Replace each code of a category in `rows` by its word, and return `rows`."""
    for row in rows:
        for place in config.categories(len(row)):
            if row[place] is not None and not math.isnan(row[place]):
                row[place] = words.get(row[place], UNKNOWN)
    return rows


# One for the process. Every reader of rows fills it.
SEEN = SeenWords()
