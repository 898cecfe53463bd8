"""The tags of the rows of a request: their times, their sources and the client's ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.problems import BadVectors
from service.timestamps import EARLIEST, LATEST, moment

LONGEST = 128  # bytes of a source, and of an id

Rows = slice | NDArray[np.intp] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RowTags:
    """The tags of n rows. Each field has one entry a row, or is None if the request had none.

    `timestamps` (n,) are seconds since 1970. `sources` name the source of each row. `ids` are the
    client's own ids.
    """

    timestamps: NDArray[np.float64] | None = None
    sources: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None

    def take(self, rows: Rows) -> "RowTags":
        """Return the tags of some of the rows."""
        times = self.timestamps
        return RowTags(
            None if times is None else times[rows],
            _chosen(self.sources, rows),
            _chosen(self.ids, rows),
        )

    def timestamp(self, row: int) -> float | None:
        """Return the time of row `row` in seconds since 1970."""
        return None if self.timestamps is None else float(self.timestamps[row])

    def source(self, row: int) -> str | None:
        """Return the source of the row."""
        return None if self.sources is None else self.sources[row]

    def id(self, row: int) -> str | None:
        """Return the client's own id of the row."""
        return None if self.ids is None else self.ids[row]


NO_TAGS = RowTags()


def _chosen(values: tuple[str, ...] | None, rows: Rows) -> tuple[str, ...] | None:
    if values is None:
        return None
    return tuple(values[i] for i in np.arange(len(values))[rows].tolist())


def row_tags(
    n: int,
    timestamps: Sequence[Any] | None,
    sources: Sequence[Any] | None,
    ids: Sequence[Any] | None,
) -> RowTags:
    """Return the tags of n rows. Raises BadVectors with the row of an invalid tag."""
    for name, values in (("timestamps", timestamps), ("sources", sources), ("ids", ids)):
        if values is not None and len(values) != n:
            raise BadVectors(
                f"`{name}` has {len(values)} entries for {n} rows.", row=min(len(values), n)
            )
    return RowTags(
        None if timestamps is None else parse_times(timestamps),
        None if sources is None else _checked_texts("source", sources),
        None if ids is None else _checked_texts("id", ids),
    )


def parse_times(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return times, which are RFC 3339 or seconds since 1970, as seconds since 1970 (n,).

    A time without a zone is UTC. Raises BadVectors with the row of an invalid time.
    """
    times = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            times[row] = _time(value)
        except (ValueError, OverflowError, TypeError):
            raise BadVectors(
                "The time is not valid: send RFC 3339, or seconds since 1970.", row=row
            ) from None
    outside = ~((times >= EARLIEST) & (times <= LATEST))
    if outside.any():
        raise BadVectors(
            "The time is not in the years 1 to 9999: numbers are seconds since 1970, not "
            "milliseconds.",
            row=int(outside.argmax()),
        )
    return times


def _time(value: Any) -> float:
    if isinstance(value, str):
        at = moment(value.strip().upper())  # RFC 3339 allows t and z
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _checked_texts(field: str, values: Sequence[Any]) -> tuple[str, ...]:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise BadVectors(f"The {field} is not a string.", row=row)
        if not 1 <= len(value) <= LONGEST or len(value.encode()) > LONGEST:
            raise BadVectors(f"The {field} must have 1 to {LONGEST} bytes.", row=row)
    return tuple(values)
