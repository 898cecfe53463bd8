"""What scoring with a version costs, measured, and what is therefore done in the event loop.

A body that is judged in the event loop delays every other request. How many rows that may be
depends on the score, the network, its bank and the machine, so it is measured once, while the
version is warmed up, and kept with the champion.
"""

import math
import time
from collections.abc import Callable

from service.domain.inline_bounds import MOST_JSON, MOST_OCTETS, InlineBounds
from service.scoring import json_vectors
from service.scoring.vectors import JSON, OCTETS

BUDGET_SECONDS = 0.004  # of the event loop, for one request or one turn of small ones

_MOST_JSON = MOST_JSON if json_vectors.QUICK else 64 * 1024
_MOST_ROWS = 2048  # a rank and four numbers in the answer for each
_JSON_BYTES = 12  # of a number, typically; the shortest have two
_TRIED = (1, 8, 64)  # rows, as long as they stay within the budget
_TRIES = 5  # the fastest of which counts: another process may have had the processor
_ALIKE = 1.1  # two tries so near to each other are enough
_HOPELESS = 10  # times the budget; such a call is tried twice


def inline_bounds(dimension: int, rows: int = _MOST_ROWS) -> InlineBounds:
    """Return the bodies that hold at most so many rows."""
    numbers = min(rows, _MOST_ROWS) * dimension
    return InlineBounds(
        json=min(_MOST_JSON, _JSON_BYTES * numbers),
        octets=min(MOST_OCTETS, 4 * numbers),
        npy=min(MOST_OCTETS, numbers),  # of one byte each, at the least
    )


def share(media_type: str, size: int, bounds: InlineBounds) -> float:
    """Return the share of the event loop's budget that a body takes; above 1 a thread judges it.

    `media_type` is normalised, as `vectors.media_type` returns it.
    """
    if media_type == JSON:
        bound = bounds.json
    else:
        bound = bounds.octets if media_type == OCTETS else bounds.npy
    return size / bound if bound else math.inf


def fits_inline(media_type: str, size: int, bounds: InlineBounds) -> bool:
    """Return whether a body is read and judged at once, in the event loop."""
    return share(media_type, size, bounds) <= 1


def affordable_rows(judge: Callable[[int], object]) -> int:
    """Return how many rows `judge`, which judges that many, can judge within the budget."""
    affordable = 0
    for rows in _TRIED:
        seconds = _fastest(judge, rows)
        if seconds > BUDGET_SECONDS:
            break
        affordable = int(rows * BUDGET_SECONDS / seconds)
        if affordable < 2 * rows:
            break
    return affordable


def _fastest(judge: Callable[[int], object], rows: int) -> float:
    seconds = math.inf
    for tried in range(_TRIES):
        if tried > 1 and seconds > _HOPELESS * BUDGET_SECONDS:
            break  # no accident of scheduling
        before, now = seconds, _timed(judge, rows)
        seconds = min(before, now)
        if max(before, now) < _ALIKE * seconds:
            break
    return seconds


def _timed(judge: Callable[[int], object], rows: int) -> float:
    started = time.perf_counter()
    judge(rows)
    return max(time.perf_counter() - started, 1e-9)
