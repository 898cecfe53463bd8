"""Makes a new detector for a file; its config has columns, missing values and context."""

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from models.columns import quoted
from models.context import groups
from models.context_choice import choose
from service.cli import console
from service.cli.chunk import Chunk
from service.cli.column_guess import is_clock
from service.cli.pivot import pivot_advice
from service.cli.row_order import check_order
from service.cli.score_result import local_time
from service.cli.sheet import Sheet
from service.cli.table_files import BadTable
from service.cli.time_hint import time_options
from service.client import Refused
from service.domain.cells import is_blank
from service.json_value import JsonObject

if TYPE_CHECKING:
    from service.client import Client
    from service.client.answers import DetectorStatus

_DIFFERENT = 0.2  # sources differ if at least this share of a column's variance lies between them
_ROWS_OF_A_SOURCE = 100  # the fewest rows that show the level of a source
# A new detector waits for the whole file, because a version of its first rows alone may know one
# day or one machine. But it waits for no more numbers and rows than these.
_MOST_AWAITED, _MOST_ROWS = 2**25, 100_000


def ensured(
    client: "Client", detector: str, sheet: Sheet, timezone: str, waiting: ExitStack, *, quiet: bool
) -> "tuple[DetectorStatus, bool]":
    """Return the detector's status. A missing detector is made with the columns of the file.

    The second value says whether it was made. If so, it is not retrained for its number of rows
    until `waiting` is closed.
    """
    try:
        return client.detector(detector), False
    except Refused as error:
        if error.status != 404:
            raise
    wanted, notes = config_for(sheet, timezone)
    template, colon, _ = detector.partition(":")
    if colon:
        wanted = template_config(client, template, wanted)
    config = client.create(detector, wanted)
    min_vectors = config["retrain"]["min_vectors"]
    rows = min(_MOST_ROWS, _MOST_AWAITED // max(1, config["dimension"] or 1))
    if min_vectors is not None and min_vectors < rows:
        client.change(detector, {"retrain": {"min_vectors": rows}})
        waiting.callback(client.change, detector, {"retrain": {"min_vectors": min_vectors}})
    for note in () if quiet else (*sheet.notes, *notes):
        console.complain(f"{sheet.file}: {note}")
    console.complain(f"created the detector {detector}")
    return client.detector(detector), True


def config_for(sheet: Sheet, timezone: str) -> tuple[JsonObject, list[str]]:
    """Return a config for the columns of `sheet`, and notes about it for a person.

    Raises BadTable if no column can be learned, if a row has one reading of many, or if the newest
    rows come first.
    """
    # A sensor that fails tomorrow must not stop the scoring of all others.
    config: JsonObject = {"missing": "impute"}
    gaps = ["some cells are blank: rows are judged on what was observed"] * sheet.blanks
    if sheet.guessed is None or sheet.first is None:
        if sheet.first is not None:
            _check_numbers(sheet.first)
        return config, gaps
    guessed, notes = sheet.guessed, list(sheet.guessed.notes)
    if not guessed.columns:
        line, row = sheet.first.lines[0], sheet.first.rows[0]
        raise BadTable(f"{sheet.file}: no column holds numbers; line {line} has {quoted(row)}")
    config["columns"] = [{"name": name, "type": kind} for name, kind in guessed.columns]
    numeric = [name for name, kind in guessed.columns if kind == "number"]
    names = [name for name in sheet.names or () if not is_clock(sheet.first.cells[name])]
    if advice := pivot_advice(sheet.first, names, numeric):
        raise BadTable(f"{sheet.file}: {advice}")
    notes += [f"columns: {guessed.shown()}", *gaps]
    if sheet.first.times is not None:
        words = tuple(name for name, kind in guessed.columns if kind == "category")
        check_order(sheet.first, words)
        zone, times = ZoneInfo(timezone), sheet.first.times
        ends = " to ".join(local_time(float(at), zone) for at in (times.min(), times.max()))
        days = " (days of a spreadsheet? --time-format excel)" if _are_days(times) else ""
        notes.append(f"times of the first {len(times)} rows: {ends} {zone}{days}")
        context, why = _context(sheet.first, dict(guessed.columns), timezone)
        config["context"] = context
        notes.append(why)
    return config, notes


def _check_numbers(chunk: Chunk) -> None:
    """Raise BadTable if a column of a file without a header does not hold numbers."""
    for name, cells in chunk.cells.items():
        written = [cell for cell in cells if not is_blank(cell)]
        if written and (options := time_options(name, written)):
            raise BadTable(f"{chunk.file}: column {name} holds times: give {options}")
    chunk.matrix([(name, "number") for name in chunk.cells], gaps=True)


def _context(chunk: Chunk, columns: dict[str, str], timezone: str) -> tuple[JsonObject | None, str]:
    """Return a context for rows with times, or None if earlier rows tell little, and the reason."""
    X = chunk.matrix([(n, kind) for n, kind in columns.items() if kind == "number"], gaps=True)
    context, why = choose(X, chunk.times, chunk.sources, timezone)
    return None if context is None else asdict(context), why


def _are_days(times: NDArray[np.float64]) -> bool:
    """Return whether times (n,) seem to be the days of a spreadsheet, not seconds since 1970."""
    return bool(times.min() > 20_000 and times.max() < 80_000)  # the years 1954 to 2119


def sources_note(sheet: Sheet, source: str | None) -> str | None:
    """Return the advice to learn each source by itself if their levels differ much, else None.

    One detector for all takes the level of one source for normal in another one.
    """
    chunk = sheet.first
    names = [name for name, kind in sheet.columns() if kind == "number"]
    if chunk is None or source is None:
        return None
    by_source = [
        rows for rows in groups(chunk.sources, len(chunk)) if len(rows) >= _ROWS_OF_A_SOURCE
    ]
    if len(by_source) < 2 or not names:
        return None
    X = chunk.matrix([(name, "number") for name in names], gaps=True).astype(np.float64)
    spread = np.array([_variance(X[rows]) for rows in by_source])
    whole = _variance(X[np.concatenate(by_source)])
    within = np.average(spread, axis=0, weights=[len(rows) for rows in by_source])
    shares = 1.0 - np.divide(within, whole, out=np.ones_like(whole), where=whole > 0.0)
    most = int(shares.argmax())
    if shares[most] < _DIFFERENT:
        return None
    return (
        f"the values of {quoted([source])} differ: {shares[most]:.0%} of the variance of "
        f"{quoted([names[most]])} lies between them. A detector for each, by --group-by in place "
        "of --source, finds smaller faults"
    )


def _variance(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of each column of X (n, d), 0 where all is NaN."""
    variances: NDArray[np.float64] = np.ma.masked_invalid(X).var(axis=0).filled(0.0)
    return variances


def template_config(client: "Client", name: str, wanted: JsonObject) -> JsonObject:
    """Return the config of the template. A missing template is made with the config `wanted`."""
    stored: Any
    try:
        stored = client.template(name)
    except Refused as error:
        if error.status != 404:
            raise
        stored = client.create_template(name, wanted)
    return dict(stored)
