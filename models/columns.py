"""Columns of a client's table: their names, their types and their order."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.categories import LONGEST_WORD, codes
from models.errors import ConfigError, VectorError

TYPES = ("number", "flag", "category")
MAX_DIMENSION = 65_536  # the most columns of a detector, and the most numbers of a vector
LONGEST_NAME = 128  # characters
MOST_VALUES = 4096  # the longest list of a category's known words
_LISTS = ("tolist", "to_pylist")  # how tables give a column as a list
_SHOWN = 3  # the most names in one message
_SHOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a client's rows: a `number`, a `flag` (0 or 1) or a `category` (a word).

    `values` are the known words of a category; unknown words may still arrive. A version lists the
    words that it learned.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    name: str
    type: str = "number"
    values: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_name("columns", self.name)
        if self.type not in TYPES:
            raise ConfigError(f"columns.type: choose one of {', '.join(TYPES)}")
        if self.values is None:
            return
        object.__setattr__(self, "values", tuple(self.values))
        if self.type != "category" or len(self.values) > MOST_VALUES:
            raise ConfigError(f"columns.values: only a category has values, at most {MOST_VALUES}")
        if not all(
            isinstance(value, str) and 1 <= len(value) <= LONGEST_WORD for value in self.values
        ):
            raise ConfigError(f"columns.values: a word must have 1 to {LONGEST_WORD} characters")

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON-able values; without `values` if none is known."""
        values: dict[str, Any] = {} if self.values is None else {"values": list(self.values)}
        return {"name": self.name, "type": self.type} | values


def check_name(field: str, name: str) -> None:
    """Raise ConfigError unless `name` can name a column."""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise ConfigError(
            f"{field}: a name must have 1 to {LONGEST_NAME} printable characters, and no space at "
            "either end"
        )


def quoted(names: Iterable[str]) -> str:
    """Return the first three names for a message: shortened, quoted and escaped.

    >>> quoted(["speed", "a" * 80])
    '"speed", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."'
    """
    names = list(names)
    shown = ", ".join(f'"{_escaped(name)}"' for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _escaped(name: str) -> str:
    shown = "".join(map(_escaped_character, name[:_SHOWN_CHARACTERS]))
    return shown if len(name) <= _SHOWN_CHARACTERS else shown + "..."


def _escaped_character(char: str) -> str:
    if char.isprintable() and char not in '"\\':
        return char
    if ord(char) > 126:
        return char.encode("ascii", "backslashreplace").decode()
    return f"\\x{ord(char):02x}"


def order(header: Sequence[str], names: Sequence[str], *, extra: bool = False) -> list[int]:
    """Return the index in `header` of each of `names`.

    With `extra`, the header may have other columns too. Raises VectorError that names at most three
    missing, unknown or repeated columns.
    """
    places: dict[str, int] = {}
    twice = []
    for place, name in enumerate(header):
        if places.setdefault(name, place) != place:
            twice.append(name)
    if twice:
        raise VectorError(f"columns: {quoted(twice)} given twice")
    missing = [name for name in names if name not in places]
    if missing:
        raise VectorError(f"columns: {quoted(missing)} missing; {_known(names)}")
    if not extra and len(places) > len(names):
        known = set(names)
        unknown = [name for name in header if name not in known]
        raise VectorError(f"columns: {quoted(unknown)} unknown; {_known(names)}")
    return [places[name] for name in names]


def _known(names: Sequence[str]) -> str:
    return f"the detector takes {len(names)}: {quoted(names)}"


def named_matrix(X: Any, names: Sequence[str] | None, words: Container[str]) -> Any:
    """Return a table with named columns as float32 (n, d), in the order of `names`.

    A table is any object that has names of its columns and returns a column by its name, such as a
    DataFrame of pandas or polars, or a table of pyarrow. Anything else is returned unchanged.
    Without `names` the columns keep the table's order. A column among `words` is a category: its
    words become codes. Raises VectorError that names the column.
    """
    header = table_names(X)
    if header is None:
        return X
    names = header if names is None else names
    order(header, names)  # raises VectorError if the table has other columns
    return np.column_stack(
        [
            codes(table_words(X[name], name)).astype(np.float32)
            if name in words
            else _floats(X[name], name)
            for name in names
        ]
    )


def _floats(values: Any, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        # A value beyond float32's range becomes infinite; `check_vectors` then names its row.
        cells = np.asarray(values)
        if cells.dtype.kind != "M":
            with np.errstate(over="ignore"):
                return np.asarray(values, np.float64).astype(np.float32)
    except (TypeError, ValueError):
        raise VectorError(
            f"vectors: column {quoted([name])} does not hold numbers; if it holds words, give "
            f'Config(columns=...) with Column({quoted([name])}, "category")'
        ) from None
    raise VectorError(
        f"vectors: column {quoted([name])} holds times; leave it out, or make it the index"
    )


def table_words(values: Any, name: str) -> list[str | None]:
    """Return the words of a table's column, None for a missing one; raise VectorError for others.

    Whole numbers and booleans become words as JSON writes them: 3, true.
    """
    words = []
    cells = next((getattr(values, how)() for how in _LISTS if hasattr(values, how)), values)
    for row, value in enumerate(cells):
        word = as_word(value)
        if word is not None and not 1 <= len(word) <= LONGEST_WORD:
            raise VectorError(
                f"vectors: row {row}, column {quoted([name])} is not a word of 1 to {LONGEST_WORD} "
                "characters"
            )
        words.append(word)
    return words


def as_word(value: object) -> str | None:
    """Return a category's cell as a word; '' if it cannot be a word, None if it is missing.

    >>> as_word("idle"), as_word(3), as_word(3.0), as_word(True), as_word(float("nan"))
    ('idle', '3', '3', 'true', None)
    """
    if isinstance(value, str):
        return str(value)  # numpy's string types become str
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(value)
    if value is None or type(value).__name__ == "NAType":  # NA of pandas
        return None
    if value != value:  # noqa: PLR0124 - NaN, and the times that are missing
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else ""


def table_names(X: Any) -> tuple[str, ...] | None:
    """Return the names of a table's columns; None if `X` has none, or numbers them from 0.

    Raises VectorError if they are neither names nor these numbers: otherwise the columns would
    count by their position, and nothing would say so.
    """
    header = getattr(X, "column_names", getattr(X, "columns", None))  # of pyarrow, or of others
    if header is None:
        return None
    names = tuple(header)
    if names and all(isinstance(name, str) for name in names):
        return names
    if names != tuple(range(len(names))):
        raise VectorError(
            "columns: the table's labels are not names; rename its columns, or give its values as "
            "a matrix (`to_numpy()`), whose columns count by position"
        )
    return None
