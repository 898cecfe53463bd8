"""Checks whether the rows of a file are in the order of time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.context import groups
from service.cli.chunk import Chunk
from service.cli.table_files import BadTable

_MOST = 0.3  # a file is refused if more than this share of its rows would be lost
_FEW = 0.05  # late rows that a file in the order of time may have
_DAY = 86_400.0


def check_order(chunk: Chunk, categories: tuple[str, ...]) -> None:
    """Raise BadTable if many rows are not newer than an earlier row of their source.

    Rows that are repeated as a whole are not counted: they tell nothing new. The error says why it
    is raised: the rows of several machines, dates without a time of day, or another order.
    `categories` are the columns that may name the machines.
    """
    if chunk.times is None or len(chunk) < 2:
        return
    late = _late(chunk.times, chunk.sources)
    late[_repeated(chunk.rows)] = False
    if late.mean() <= _MOST:
        return
    times, first = chunk.times, f"of the first {len(chunk):,} rows"
    if 2 * (len(times) - len(np.unique(times))) < np.count_nonzero(late):
        falling = np.count_nonzero(np.diff(times) < 0) > 0.9 * len(times)
        order = "the newest rows come first" if falling else "the rows are not in the order of time"
        raise BadTable(f"{chunk.file}: {order}; sort the file by time")
    if not (times % _DAY - times[0] % _DAY).any():
        raise BadTable(
            f"{chunk.file}: {late.sum():,} {first} have the date of an earlier row, and no time of "
            "day: give the column of the time of day, too, by --time DATE,CLOCK"
        )
    named = (name for name in categories if _late(times, chunk.cells[name]).mean() <= _FEW)
    machine = next(named, None)
    advice = (
        f"give --source {machine}"
        if machine is not None
        else "if several machines share the file, --source names their column; else delete the rows"
    )
    rows = f"{late.sum():,} {first}"
    raise BadTable(f"{chunk.file}: {rows} have the time of an earlier row: {advice}")


def _repeated(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the numbers of the rows that are equal to an earlier one."""
    seen: dict[tuple[str, ...], int] = {}
    return [i for i, row in enumerate(rows) if seen.setdefault(tuple(row), i) != i]


def _late(times: NDArray[np.float64], sources: Sequence[str] | None) -> NDArray[np.bool_]:
    """Return which rows are not newer than an earlier row of their source, (n,)."""
    late = np.zeros(len(times), bool)
    for rows in groups(sources, len(times)):
        of_source = times[rows]
        late[rows[1:]] = of_source[1:] <= np.maximum.accumulate(of_source)[:-1]
    return late
