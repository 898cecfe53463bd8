"""Measures the cost of scoring, and decides which bodies the event loop may judge itself.

A body that the event loop judges delays every other request. The number of rows that the event loop
can afford depends on the score, the network, its bank and the machine. So it is measured once,
while the version is warmed up, and kept with the champion.
"""

import math
import time
from collections.abc import Callable

from service.domain.inline_bounds import MOST_JSON, MOST_OCTETS, InlineBounds
from service.scoring import json_vectors
from service.scoring.vectors import JSON, OCTETS

# The event loop spends at most this time on one request, or on all small requests of a turn.
BUDGET_SECONDS = 0.004

_MOST_JSON = MOST_JSON if json_vectors.QUICK else 64 * 1024
_MOST_ROWS = 2048  # each row costs a rank and four numbers in the answer
_JSON_BYTES = 12  # bytes of a typical number and its comma; the shortest has two
_TRIED = (1, 8, 64)  # row counts that are measured, until one exceeds the budget
_TRIES = 5  # the fastest try counts: another process may have delayed the others
_ALIKE = 1.1  # if two tries differ by less than this factor, no more are made
_HOPELESS = 10  # a call that takes this many times the budget is tried only twice


def inline_bounds(dimension: int, rows: int = _MOST_ROWS) -> InlineBounds:
    """Return the largest bodies, in bytes, that hold at most `rows` rows."""
    numbers = min(rows, _MOST_ROWS) * dimension
    return InlineBounds(
        json=min(_MOST_JSON, _JSON_BYTES * numbers),
        octets=min(MOST_OCTETS, 4 * numbers),
        npy=min(MOST_OCTETS, numbers),  # a number takes at least one byte
    )


def budget_share(media_type: str, size: int, bounds: InlineBounds) -> float:
    """Return the share of the event loop's budget that a body takes.

    If the share is above 1, a thread judges the body. `media_type` is a value that
    `vectors.media_type` returned.
    """
    if media_type == JSON:
        bound = bounds.json
    else:
        bound = bounds.octets if media_type == OCTETS else bounds.npy
    return size / bound if bound else math.inf


def fits_inline(media_type: str, size: int, bounds: InlineBounds) -> bool:
    """Return whether the event loop itself reads and judges the body."""
    return budget_share(media_type, size, bounds) <= 1


def affordable_rows(score_rows: Callable[[int], object]) -> int:
    """Return how many rows can be judged within the budget; `score_rows(n)` judges n rows."""
    affordable = 0
    for rows in _TRIED:
        seconds = _fastest_try(score_rows, rows)
        if seconds > BUDGET_SECONDS:
            break
        affordable = int(rows * BUDGET_SECONDS / seconds)
        if affordable < 2 * rows:
            break
    return affordable


def _fastest_try(score_rows: Callable[[int], object], rows: int) -> float:
    seconds = math.inf
    for tried in range(_TRIES):
        if tried > 1 and seconds > _HOPELESS * BUDGET_SECONDS:
            break  # two tries were far too slow, so the scheduler is not the cause
        before, now = seconds, _timed(score_rows, rows)
        seconds = min(before, now)
        if max(before, now) < _ALIKE * seconds:
            break
    return seconds


def _timed(score_rows: Callable[[int], object], rows: int) -> float:
    started = time.perf_counter()
    score_rows(rows)
    return max(time.perf_counter() - started, 1e-9)
