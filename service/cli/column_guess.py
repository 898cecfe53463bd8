"""Guesses the types of a file's columns from its first rows. A person can see and correct them."""

import contextlib
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from models.categories import LONGEST_WORD
from models.columns import quoted
from models.context import groups
from models.survey.counters import FEWEST, is_counter, restarts_rarely
from service.cli import units
from service.cli.chunk import Chunk
from service.cli.time_hint import time_options
from service.domain.cells import BadCell, indistinct, is_blank, is_number, is_word, limit, numbers

_MOSTLY = 0.5  # with more than this share of numbers, a column has bad cells and is not text
_FLAGS = frozenset({"true", "false", "yes", "no", "on", "off"})
_LEAST_WORDS = 0.05  # share of filled cells; a column of text with fewer holds remarks, not states
# The least share of filled cells in a column of numbers. A detector fills in blank ones, and it can
# do so where most values are known.
_LEAST_NUMBERS = 0.2
_MOST_SHOWN = 12
_MOST_UNITS = 5  # of the numbers of a column; with more, they are digits of codes
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( ?[AaPp][Mm])?")  # a time of day
_COUNTER = (
    "only rises or only falls from row to row, like a counter: dropped, because later values are "
    "outside the learned range; its increase can be learned"
)
_RESTARTS = (
    "starts again only a few times, like a counter: kept, and rows beyond the highest value so far "
    "will alarm; --drop {name} if they are not faults"
)
_CONSTANT = "constant so far: kept, since any change is an anomaly"
# A text column is a category if it has at most so many different values, each in at least so many
# rows on average. Other text is names or remarks.
_MOST_WORDS, _LEAST_ROWS_OF_WORD = 50, 2


@dataclass(frozen=True, slots=True)
class Guess:
    """The columns to learn, each with its name and type, and notes about the file for a person.

    `blanks` says whether any of their cells is blank in the first rows.
    """

    columns: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    blanks: bool

    def shown(self) -> str:
        """Return the columns on one line, as they can be written in a config."""
        shown = ", ".join(f"{name} ({kind})" for name, kind in self.columns[:_MOST_SHOWN])
        more = len(self.columns) - _MOST_SHOWN
        return f"{shown} and {more} more" if more > 0 else shown


def guess(chunk: Chunk, names: Sequence[str], categories: Container[str] = ()) -> Guess:
    """Guess the type of each column of `names` from the rows of `chunk`; `categories` are given."""
    columns: list[tuple[str, str]] = []
    dropped: list[str] = []
    constant: list[str] = []
    notes: list[str] = []
    blanks = False
    clock = next((name for name in names if is_clock(chunk.cells[name])), None)
    for name in names:
        kind, note, share = _column(chunk, name, clock, is_category=name in categories)
        if note == _CONSTANT:
            constant.append(name)
        elif note:
            notes.append(note)
        if kind:
            columns.append((name, kind))
            blanks = blanks or share < 1.0
        else:
            dropped.append(name)
    if constant:
        several = (
            f"columns {quoted(constant)} are"
            if len(constant) > 1
            else f"column {quoted(constant)} is"
        )
        notes.append(f"{several} {_CONSTANT}")
    return Guess(tuple(columns), tuple(dropped), tuple(notes), blanks)


def is_clock(cells: Sequence[str]) -> bool:
    """Return whether the cells are times of day."""
    filled = [cell.strip() for cell in cells if not is_blank(cell)]
    return bool(filled) and all(map(_CLOCK.fullmatch, filled))


def _column(
    chunk: Chunk, name: str, clock: str | None, *, is_category: bool
) -> tuple[str | None, str | None, float]:
    """Return the type of a column, None if it is dropped, a note or None, and the filled share.

    `clock` is the column of the times of day, if there is one.
    """
    cells = chunk.cells[name]
    filled = [cell for cell in cells if not is_blank(cell)]
    if not filled:
        return None, f"{_named(name)} is blank in the first {len(cells)} rows: dropped", 0.0
    if name == clock and not is_category:
        return None, f"{_named(name)} holds times of day: dropped", 0.0
    kind, note = ("category", None) if is_category else _kind(chunk, name, filled, clock)
    if kind == "number":
        filled = [cell for cell in filled if not is_word(cell)]
        kind, note = _as_counter(chunk, name, note)
    if kind == "category":
        note = _stretches_note(name, cells, chunk.sources)
    share = len(filled) / len(cells)
    if kind and (why := _too_blank(kind, share)):
        return None, f"{_named(name)} {why}", share
    return kind, note, share


def _too_blank(kind: str, filled: float) -> str | None:
    """Return why a column of which this share is filled is dropped, None if it is not."""
    if filled >= (_LEAST_WORDS if kind == "category" else _LEAST_NUMBERS):
        return None
    advice = "; to learn it, too, write its rows into another file" if kind != "category" else ""
    return f"is blank in {1.0 - filled:.1%} of the first rows: dropped{advice}"


def _kind(
    chunk: Chunk, name: str, filled: Sequence[str], clock: str | None
) -> tuple[str | None, str | None]:
    """Return the type of a column, None if it is dropped, and a note about it or None."""
    comma = chunk.comma
    if {cell.strip().lower() for cell in filled} <= _FLAGS:
        return "flag", None
    if options := time_options(name, filled, chunk.times):
        if clock is not None and not any(":" in cell for cell in filled):
            pairs = zip(chunk.cells[name], chunk.cells[clock], strict=True)
            days = [f"{day} {time}" for day, time in pairs if not (is_blank(day) or is_blank(time))]
            options = time_options(f"{name},{clock}", days, chunk.times) or options
        return None, f"{_named(name)} holds times: dropped; {options} makes use of them"
    are_numbers = sum(is_number(limit(cell), comma=comma) for cell in filled)
    without_words = [cell for cell in filled if not is_word(cell)]
    if are_numbers > _MOSTLY * len(filled):
        return "number", _numeric_note(name, without_words, comma=comma)
    unit = units.common(filled, comma=comma)
    if unit and len(without_words) > _MOSTLY * len(filled):
        note = _numeric_note(name, units.without(without_words, unit), comma=comma)
        return "number", note or f"{_named(name)} holds numbers in {quoted([unit])}"
    values = len({cell.strip() for cell in filled})
    few = values <= _MOST_WORDS and values * _LEAST_ROWS_OF_WORD <= len(filled)
    if few and max(map(len, filled)) <= LONGEST_WORD:
        return "category", None
    own_units = {units.split(cell)[1] for cell in filled}
    if "" not in own_units and len(own_units) <= _MOST_UNITS:
        reason = (
            f"numbers with different units, {quoted(sorted(own_units))}: dropped; write them in one"
        )
    else:
        reason = f"text, {values} values of {len(filled)}: dropped"
    return None, f"{_named(name)} holds {reason}"


def _stretches_note(name: str, cells: Sequence[str], sources: Sequence[str] | None) -> str | None:
    """Return a warning if no word of the column comes back after another word, else None.

    The name of a release is an example: rows with the next, new name will alarm. A column whose
    word never changes within a source, such as the site of the source, gets no warning.
    """
    words = [cell.strip() for cell in cells]
    changes = False
    for rows in groups(sources, len(words)):
        words_of_source = [words[row] for row in rows if not is_blank(words[row])]
        changes = changes or len(set(words_of_source)) > 1
        if len(list(groupby(words_of_source))) > len(set(words_of_source)):
            return None  # words come back, as in a column of states
    if len(set(words)) > 1 and not changes:
        return None
    repetition = "is the same word" if len(set(words)) == 1 else "has each word in one stretch"
    return (
        f"{_named(name)} {repetition} so far: kept, and rows with a new word will alarm; "
        f"--drop {name} where a new word is not a fault (a release, a batch)"
    )


def _numeric_note(name: str, filled: Sequence[str], *, comma: bool) -> str | None:
    try:
        values = numbers(filled, comma=comma)
    except BadCell:
        return None  # reading the matrix later reports the place
    if np.ptp(values) == 0:
        return _CONSTANT
    if indistinct(values):
        return (
            f"{_named(name)} holds numbers that float32 cannot tell apart: --drop it, or subtract "
            "a constant (a number of seconds, an id)"
        )
    if beyond := [cell.strip() for cell in filled if limit(cell) != cell.strip()]:
        return f"{_named(name)} has cells such as {quoted(beyond[:1])}: the limit is taken"
    return None


def is_counter_column(chunk: Chunk, name: str, fewest: int = FEWEST) -> bool:
    """Return whether a column only rises, or only falls, from row to row of each source.

    At least `fewest` steps must show it.
    """
    try:
        values = chunk.numbers(name, gaps=True)
    except BadCell:
        return False
    return is_counter(values, groups(chunk.sources, len(values)), fewest)


def _as_counter(chunk: Chunk, name: str, note: str | None) -> tuple[str | None, str | None]:
    """Return the type of a column of numbers, None for a counter, and a note about it or `note`."""
    if is_counter_column(chunk, name):
        return None, f"{_named(name)} {_COUNTER}"
    with contextlib.suppress(BadCell):
        values = chunk.numbers(name, gaps=True)
        if restarts_rarely(values, groups(chunk.sources, len(values))):
            return "number", f"{_named(name)} {_RESTARTS.format(name=name)}"
    return "number", note


def _named(name: str) -> str:
    return f"column {quoted([name])}"
