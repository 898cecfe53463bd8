"""Derives from a history the features that a detector with a context would judge."""

from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from models.context import SCORED, Context, derive
from models.context_choice import choose
from service.cli.disk_rows import DiskRows, parts
from service.cli.history_files import FileHistory
from service.client.stream import Tails

_MOST = 50_000  # rows that decide on the context


def chosen_context(history: FileHistory, rows: int, timezone: str) -> tuple[Context | None, str]:
    """Return the context that `learn` would choose for the first rows, or None, and the reason.

    Later rows do not decide: a detector that begins with these rows does not know them.
    """
    first = slice(0, min(rows, _MOST))
    numbers = history.vectors[first][:, _numbers(history)]
    times = None if history.times is None else history.times[first]
    return choose(numbers, times, _sources(history, first), timezone)


def with_context(history: FileHistory, context: Context) -> FileHistory:
    """Return the history of the features that `context` derives, as many rows as can be judged.

    A row is left out if it has too few rows before it, or is not newer than the row before it.
    """
    assert history.times is not None  # without times no context is chosen
    numbers, tails = _numbers(history), Tails(asdict(context))
    times_left = DiskRows(np.float64)
    derived = replace(
        history,
        vectors=DiskRows(np.float32, context.width(numbers)),
        times=times_left,
        anomalous=None if history.anomalous is None else DiskRows(np.bool_),
        sources=None,
    )
    for part_rows in parts(len(history.vectors)):
        X, times = history.vectors[part_rows], history.times[part_rows]
        features = np.empty((len(X), context.width(numbers)), np.float32)
        scored = np.zeros(len(X), bool)
        for part in tails.parts(X, times, _sources(history, part_rows)):
            rows, states = derive(
                context, part.X, numbers, times=part.times, sources=part.sources,
                context_rows=part.context_rows,
            )  # fmt: skip
            features[part.places] = rows[part.rows]
            scored[part.places] = states[part.rows] == SCORED
        derived.vectors.add(features[scored])
        times_left.add(times[scored])
        if derived.anomalous is not None and history.anomalous is not None:
            derived.anomalous.add(history.anomalous[part_rows][scored])
    return derived


def _numbers(history: FileHistory) -> NDArray[np.bool_]:
    """Return which of the columns are numbers, (d,)."""
    return np.array([column.type == "number" for column in history.columns])


def _sources(history: FileHistory, rows: slice) -> list[str] | None:
    """Return the names of the sources of some rows, which are their numbers."""
    return None if history.sources is None else [str(n) for n in history.sources[rows].tolist()]
