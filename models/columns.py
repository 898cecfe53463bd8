"""Columns of a client's table: their names and types, and a table's columns put in order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.errors import ConfigError, VectorError

TYPES = ("number", "flag")
LONGEST_NAME = 128  # characters
_SHOWN = 3  # names in one message
_SHOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a client's rows: a `number`, or a `flag` that is 0 or 1."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    name: str
    type: str = "number"

    def __post_init__(self) -> None:
        check_name("columns", self.name)
        if self.type not in TYPES:
            raise ConfigError(f"columns.type: not built; one of {', '.join(TYPES)} is")


def check_name(field: str, name: str) -> None:
    """Raise ConfigError unless `name` can name a column."""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise ConfigError(
            f"{field}: a name has 1 to {LONGEST_NAME} printable characters, no space at its ends"
        )


def quoted(names: Iterable[str]) -> str:
    """Return the first three names for a message: cut, quoted, and unprintable characters escaped.

    >>> quoted(["speed", "a" * 80])
    '"speed", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."'
    """
    names = list(names)
    shown = ", ".join(f'"{_escaped(name)}"' for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _escaped(name: str) -> str:
    cut = name[:_SHOWN_CHARACTERS]
    safe = "".join(
        char
        if char.isprintable() and char not in '"\\'
        else char.encode("ascii", "backslashreplace").decode()
        if ord(char) > 126
        else f"\\x{ord(char):02x}"
        for char in cut
    )
    return safe + "..." * (len(name) > len(cut))


def order(header: Sequence[str], names: Sequence[str], *, extra: bool = False) -> list[int]:
    """Return where each of `names` stands in `header`.

    With `extra` the header may have others too. Raises VectorError naming at most three columns
    that are missing, unknown, or there twice.
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


def named_matrix(X: Any, names: Sequence[str] | None) -> Any:
    """Return a table with named columns as float32 (n, d), its columns in the order of `names`.

    A table is whatever has `columns` of strings and gives a column by its name, such as a
    DataFrame of pandas or polars; anything else is returned as it is. Without `names` the table's
    own order stands. Raises VectorError naming the column.
    """
    header = getattr(X, "columns", None)
    if header is None:
        return X
    header = list(header)
    if not header or not all(isinstance(name, str) for name in header):
        return X if names is None else np.asarray(X)
    wanted = header if names is None else names
    places = order(header, wanted)
    return np.column_stack([_floats(X[header[place]], header[place]) for place in places])


def _floats(values: Any, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        # What is beyond float32 becomes infinite, and is refused with its row.
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float64).astype(np.float32)
    except (TypeError, ValueError):
        raise VectorError(f"vectors: column {quoted([name])} does not hold numbers") from None


def table_names(X: Any) -> tuple[str, ...] | None:
    """Return the names of a table's columns, None for what has none."""
    header = getattr(X, "columns", None)
    if header is None:
        return None
    names = tuple(header)
    return names if names and all(isinstance(name, str) for name in names) else None
