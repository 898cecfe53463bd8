"""Recognises times and their formats, and says what to do about a cell that is not a time."""

import shlex
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.survey.counters import are_seconds, are_small_units
from service.domain.cells import (
    BadCell,
    Clock,
    indistinct,
    is_blank,
    is_compact,
    is_number,
    numbers,
)

_EXAMPLE = "such as '%d.%m.%Y %H:%M'"
_LATER = (
    ", but the cells above it are: correct it, delete the line, or give the format of all times by "
    "--time-format, {}"
)
_FIRST = " (ISO 8601, or seconds since 1970): give its format by --time-format, {}"
_DATES = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d. %b %Y", "%d %b %Y", "%d-%b-%Y"),
    *("%d. %B %Y", "%d %B %Y", "%b %d, %Y", "%Y/%m/%d", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y"),
)
_SAMPLE = 50  # cells that are tried
_SHORTEST = 8  # characters of a date
_NEAR = (
    366 * 86_400.0
)  # seconds from the rows' own times; numbers further away are bytes or the like
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_FORMS = (
    *(date + clock for date in _DATES for clock in _CLOCKS),
    "[%d/%b/%Y:%H:%M:%S %z]",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%a %b %d %H:%M:%S %Y",
    "%Y-%m-%dT%H.%M.%S",
    "%Y-%m-%d-%H.%M.%S",
)


def time_hint(clock: Clock, written: Sequence[str], *, at_start: bool) -> str:
    """Return what to do about a cell of `written` that `clock` refused."""
    if not at_start:
        return _LATER.format(_EXAMPLE)
    if clock.form is not None:
        return f" of the format {clock.form!r} that --time-format gives"
    fitting = [form for form in _FORMS if _fits(form, written)]
    return _FIRST.format(" or ".join(f"'{form}'" for form in fitting) or _EXAMPLE)


def time_options(
    name: str, written: Sequence[str], times: NDArray[np.float64] | None = None
) -> str | None:
    """Return the options that read column `name` with these cells as times; None if none do.

    Numbers are times only if they are dates such as 20261130, milli-, micro- or nanoseconds since
    1970, or seconds that float32 cannot tell apart. If the `times` (n,) of the rows are known,
    numbers that would be times of other years are none.
    """
    sample = [cell.strip() for cell in written[:: 1 + len(written) // _SAMPLE]]
    option = f"--time {shlex.quote(name)}"
    if _fits(None, sample):
        return option if _are_times(written, sample, times) else None
    if min(map(len, sample)) < _SHORTEST:
        return None  # such as 10.4.12, the name of a release
    fitting = [form for form in _FORMS if _fits(form, sample)]
    return f"{option} --time-format {' or '.join(map(repr, fitting))}" if fitting else None


def _are_times(
    written: Sequence[str], sample: Sequence[str], times: NDArray[np.float64] | None
) -> bool:
    """Return whether cells that can be read as times are not other numbers."""
    if not all(map(is_number, sample)) or all(map(is_compact, sample)):
        return True
    try:
        values, seconds = numbers(written), Clock().times(written).seconds
    except BadCell:
        return False
    if not (are_small_units(values) or (are_seconds(values) and indistinct(values))):
        return False
    middle = float(np.median(seconds))
    return times is None or times.min() - _NEAR <= middle <= times.max() + _NEAR


def _fits(form: str | None, written: Sequence[str]) -> bool:
    try:
        Clock(form).times([cell for cell in written if not is_blank(cell)])
    except BadCell:
        return False
    return True
