"""Says what to do about a cell that is not a time, and which formats fit the cells."""

from collections.abc import Sequence

from service.domain.cells import BadCell, Clock, is_blank

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


def _fits(form: str, written: Sequence[str]) -> bool:
    try:
        Clock(form).times([cell for cell in written if not is_blank(cell)])
    except BadCell:
        return False
    return True
