"""Reads a history for a backtest from a file: vectors; times, sources and labels if it has them.

The file is read once and copied to a temporary file, so that it may be larger than memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.columns import Column, quoted
from service.cli import console, table_files
from service.cli.disk_rows import DiskRows
from service.cli.progress import ShownProgress
from service.cli.sheet import Sheet
from service.cli.table_files import BadTable
from service.cli.text_table import Options
from service.domain.cells import BadCell, Clock

ANOMALOUS = {"1": True, "true": True, "anomaly": True, "0": False, "false": False, "normal": False}


@dataclass(frozen=True, slots=True)
class FileHistory:
    """Vectors (n, d) in the order of time, times (n,) in seconds since 1970, known anomalies (n,).

    A missing value is NaN, a word is its code. `sources` (n,) are the numbers of the sources.
    """

    columns: tuple[Column, ...]
    vectors: DiskRows
    times: DiskRows | None
    anomalous: DiskRows | None
    sources: DiskRows | None


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a file: X (n, d) of any precision, and their times, labels and sources."""

    columns: tuple[Column, ...]
    X: NDArray[Any]
    times: NDArray[np.float64] | None
    labels: Sequence[object] | None
    sources: Sequence[str] | None
    where: Callable[[int], str]
    share: float | None


def read(file: Path, options: Options | None = None, label: str | None = None) -> FileHistory:
    """Read a CSV, `.npy`, `.npz` or `.parquet` file, with the progress on stderr.

    The columns are those that `learn` would take, without those that `options` and `label` name. In
    an `.npz` file, time and label may be vectors of these names. Rows are sorted by time. If the
    file has them in another order, this takes 16 bytes of memory for each row. Raises BadTable,
    which names the place.
    """
    options = options or Options()
    reader = {".npy": _arrays, ".npz": _arrays}.get(file.suffix, _table)
    history: FileHistory | None = None
    ascending, last = True, -np.inf
    number_of: dict[str, int] = {}  # the number of each source
    with ShownProgress(f"reading {file}") as progress:
        for part in reader(file, options, label):
            X = _finite(part)
            if history is None:
                times = None if options.time is None else DiskRows(np.float64)
                labels = None if label is None else DiskRows(np.bool_)
                sources = None if options.source is None else DiskRows(np.int64)
                vectors = DiskRows(np.float32, X.shape[1])
                history = FileHistory(part.columns, vectors, times, labels, sources)
            history.vectors.add(X)
            if history.anomalous is not None:
                history.anomalous.add(_anomalous_rows(part, label))
            if history.sources is not None and part.sources is not None:
                numbers = [number_of.setdefault(name, len(number_of)) for name in part.sources]
                history.sources.add(numbers)
            if history.times is not None and part.times is not None:
                history.times.add(part.times)
                ascending = ascending and last <= part.times[0]
                ascending = ascending and bool((np.diff(part.times) >= 0).all())
                last = part.times[-1]
            progress.at(part.share, len(history.vectors))
    if history is None:
        raise BadTable(f"{file} is empty")
    return history if ascending else _in_order(history)


def _in_order(history: FileHistory) -> FileHistory:
    assert history.times is not None
    order = np.argsort(history.times[:], kind="stable")
    known, sources = (
        None if rows is None else rows.ordered(order)
        for rows in (history.anomalous, history.sources)
    )
    return replace(
        history,
        vectors=history.vectors.ordered(order),
        times=history.times.ordered(order),
        anomalous=known,
        sources=sources,
    )


def _finite(part: _Part) -> NDArray[np.float32]:
    """Return the values as float32, NaN where one is missing. Raises BadTable for infinite ones."""
    with np.errstate(over="ignore"):
        matrix: NDArray[np.float32] = part.X.astype(np.float32)
    if (infinite := np.isinf(matrix)).any():
        row, column = divmod(int(infinite.argmax()), matrix.shape[1])
        place = f"{part.where(row)}, column {part.columns[column].name}"
        raise BadTable(f"{place} is not a finite number, or is too large for float32")
    if (empty := np.isnan(matrix).all(axis=1)).any():
        raise BadTable(f"{part.where(int(empty.argmax()))}: every cell is blank")
    return matrix


def _anomalous_rows(part: _Part, label: str | None) -> list[bool]:
    """Return which rows are known anomalies. Raises BadTable for an invalid label."""
    labels = []
    for row, value in enumerate(part.labels or ()):
        text = str(value).strip().lower().removesuffix(".0")
        if text not in ANOMALOUS:
            raise BadTable(
                f"{part.where(row)}, column {label}: {str(value)[:40]!r} is not a label (0 or 1)"
            )
        labels.append(ANOMALOUS[text])
    return labels


def _table(file: Path, options: Options, label: str | None) -> Iterator[_Part]:
    """Yield the rows of a text or Parquet file."""
    drop = options.drop if label is None else (*options.drop, label)
    with Sheet(file, replace(options, drop=drop)) as sheet:
        columns = sheet.columns()
        notes = sheet.notes
        if sheet.guessed is not None:
            notes += (*sheet.guessed.notes, f"columns: {sheet.guessed.shown()}")
        for note in notes:
            console.complain(note)
        if not columns:
            raise BadTable(f"{file}: there is no column to judge beside time and label")
        place = None if label is None else sheet.place(label)
        for rows in sheet.rows(columns, gaps=True, codes=True):
            labels = None if place is None else [cells[place] for cells in rows.cells]
            yield _Part(
                tuple(Column(name, kind) for name, kind in columns),
                rows.X,
                rows.times,
                labels,
                rows.sources,
                rows.where,
                sheet.share(),
            )


def _arrays(file: Path, options: Options, label: str | None) -> Iterator[_Part]:
    """Yield the rows of an `.npy` or `.npz` file. Raises BadTable for a missing column."""
    time, clock = options.time, options.clock()
    matrix, vectors = table_files.arrays(file)
    names = [*(str(column) for column in range(1, matrix.shape[1] + 1)), *vectors]
    named = [("--time", time), ("--source", options.source), ("--label", label)]
    named += [("--drop", name) for name in options.drop]
    for option, name in named:
        if name is not None and name not in names:
            raise BadTable(
                f"{file}: there is no column {quoted([name])} ({option}); it has {quoted(names)}"
            )
    used = [name for name in names[: matrix.shape[1]] if name not in {taken for _, taken in named}]
    if not used:
        raise BadTable(f"{file}: there is no column to judge beside time and label")
    columns = [int(name) - 1 for name in used]

    for start, rows in table_files.pieces(file, matrix):

        def column(name: str, start: int = start, rows: NDArray[Any] = rows) -> NDArray[Any]:
            array = vectors.get(name)
            if array is None:
                return rows[:, int(name) - 1]
            part: NDArray[Any] = array[start : start + len(rows)]
            return part

        def place_of(row: int, start: int = start) -> str:
            return f"{file}, row {start + row}"

        times = None if time is None else _times(clock, column(time), place_of, time)
        labels = None if label is None else column(label).tolist()
        sources = None
        if options.source is not None:
            sources = [str(name) for name in column(options.source).tolist()]
        share = (start + len(rows)) / len(matrix)
        kinds = tuple(map(Column, used))
        yield _Part(kinds, rows[:, columns], times, labels, sources, place_of, share)


def _times(
    clock: Clock, values: NDArray[Any], place_of: Callable[[int], str], name: str
) -> NDArray[np.float64]:
    cells = [str(value) for value in values.tolist()]
    try:
        return clock.times(cells).seconds
    except BadCell as error:
        cell = quoted([cells[error.row]])
        raise BadTable(f"{place_of(error.row)}, column {name}: {cell} {error}") from None
