"""The config of a detector that is made for a file: its columns, what is blank, and its context."""

from typing import Any

import numpy as np

from models.context import groups
from service.cli.sheet import Sheet, newest_first
from service.cli.table_files import BadTable
from service.cli.text_table import Chunk
from service.json_value import JsonObject

_LEAST_ROWS = 300  # of a source in the first chunk, for a context of 30 rows
_ALIKE = 0.3  # correlation of a row with the one before, from which that one says something


def config_for(sheet: Sheet, timezone: str) -> tuple[JsonObject, list[str]]:
    """Return a config for the columns of `sheet`, and what a person is told of it.

    Raises BadTable where no column can be learned, or the rows go back in time.
    """
    if sheet.guessed is None or sheet.first is None:
        return {}, []
    guessed, notes = sheet.guessed, list(sheet.guessed.notes)
    if not guessed.columns:
        raise BadTable(f"{sheet.file}: no column holds numbers")
    config: JsonObject = {
        "columns": [{"name": name, "type": kind} for name, kind in guessed.columns]
    }
    notes.append(f"columns: {guessed.shown()}")
    if guessed.blanks:
        config["missing"] = "impute"
        notes.append("some cells are blank: rows are judged on what was observed")
    if sheet.first.times is not None:
        if newest_first(sheet.first):
            raise BadTable(f"{sheet.file}: the newest rows come first; sort it by time")
        context, why = _context(sheet.first, dict(guessed.columns), timezone)
        config["context"] = context
        notes.append(why)
    return config, notes


def _context(chunk: Chunk, columns: dict[str, str], timezone: str) -> tuple[JsonObject | None, str]:
    """Return a context for rows in time, None where the row before says little, and why."""
    X = chunk.matrix([(n, kind) for n, kind in columns.items() if kind == "number"], gaps=True)
    alike, longest = [], 0
    for rows in groups(chunk.sources, len(chunk)):
        longest = max(longest, len(rows))
        alike += [_correlation(X[rows, j]) for j in range(X.shape[1])]
    known = [one for one in alike if np.isfinite(one)]
    middle = float(np.median(known)) if known else 0.0
    if middle < _ALIKE:
        return None, f"no context: a row and the one before correlate by {middle:.2f} only"
    over = 30 if longest >= _LEAST_ROWS else 10
    context: JsonObject = {"over": over, "derive": ["value", "deviation"], "timezone": timezone}
    return context, (
        f"context: each number's deviation from the {over} rows before it, since a row and the one "
        f"before correlate by {middle:.2f}"
    )


def _correlation(values: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    before, after = values[:-1].astype(np.float64), values[1:].astype(np.float64)
    both = np.isfinite(before) & np.isfinite(after)
    before, after = before[both], after[both]
    if len(before) < 10 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return float("nan")
    return float(np.corrcoef(before, after)[0, 1])
