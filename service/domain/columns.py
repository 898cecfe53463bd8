"""The columns of a detector, and the order in which a table has them."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.columns import order, quoted
from models.config import Config
from models.errors import VectorError
from service.problems import BadVectors, Unprocessable


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of a detector's columns, and the type of each."""

    names: tuple[str, ...]
    types: tuple[str, ...]

    @classmethod
    def of(cls, config: Config) -> "Columns":
        """Return the columns of a detector; raise Unprocessable if its columns have no names."""
        if config.columns is not None:
            names, types = zip(
                *((column.name, column.type) for column in config.columns), strict=True
            )
            return cls(tuple(names), tuple(types))
        if config.features is not None:
            return cls(config.features, ("number",) * len(config.features))
        raise Unprocessable(
            "The detector's columns have no names: give `columns` in its config, or send `vectors`."
        )

    def order(self, header: Sequence[str], *, extra: bool = False) -> list[int]:
        """Return the place of each column in `header`. Raises BadVectors if a name does not fit.

        With `extra` the header may have other names too.
        """
        try:
            return order(header, self.names, extra=extra)
        except VectorError as error:
            text = str(error).removeprefix("columns: ")
            hint = (
                "" if extra or "unknown" not in text else " `extra=drop` in the query drops others."
            )
            raise BadVectors(f"Columns {text}.{hint}") from None


def column(name: str) -> str:
    """Return the name of a column as errors show it."""
    return quoted([name])


def value_in(name: str) -> str:
    """Return the subject of an error about a value in the column."""
    return f"The value in column {column(name)}"
