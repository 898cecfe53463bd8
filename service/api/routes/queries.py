"""What the query of a list says: a range of time, a page of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from service.api import openapi
from service.domain.row_labels import parse_times
from service.problems import BadVectors, Unprocessable

PAGE, MOST = 100, 1000

T = TypeVar("T")

# Of lists that were there before they had pages, for their documentation.
PAGED = {
    "limit": openapi.query("limit", "At most so many, newest first; all without.", maximum=MOST),
    "after": openapi.query("after", "What `next` said.", type="string"),
}


@dataclass(frozen=True, slots=True)
class Range:
    """From `start` until before `end`, in seconds since 1970; None where that end is open."""

    start: float | None = None
    end: float | None = None

    def holds(self, first: float, last: float | None = None) -> bool:
        """Return whether something from `first` to `last` lies in it, at least in part."""
        last = first if last is None else last
        return (self.end is None or first < self.end) and (self.start is None or last >= self.start)


def time_range(request: Request) -> Range:
    """Return `from` and `to` of the query; Unprocessable for what is no time."""
    found = Range(_time(request, "from"), _time(request, "to"))
    if found.start is not None and found.end is not None and found.end <= found.start:
        raise Unprocessable("`to` in the query is not after `from`.")
    return found


def whole_number(
    request: Request, name: str, default: int, most: int = MOST, *, least: int = 1
) -> int:
    """Return a number from `least` to `most` of the query; Unprocessable for another."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise Unprocessable(f"`{name}` in the query is a whole number from {least} to {most}.")
    return int(text)


def more(last: str | int | None) -> dict[str, str | int]:
    """Return `next` of a page whose last item this is, nothing on the last page."""
    return {} if last is None else {"next": last}


def is_paged(request: Request) -> bool:
    """Return whether the query asks for a page of a list that is answered whole without."""
    return not request.query_params.keys().isdisjoint(PAGED)


def page(
    found: Sequence[T], of: Callable[[T], str], request: Request, limit: int, none: str = "nothing"
) -> tuple[Sequence[T], str | None]:
    """Return what follows `after` of the query, `limit` at most, and what `next` says, if anything.

    `of` names one of `found`. Raises Unprocessable for an `after` that names `none` of them.
    """
    after, start = request.query_params.get("after"), 0
    if after is not None:
        ids = [of(one) for one in found]
        if after not in ids:
            raise Unprocessable(f"`after` in the query names {none} of this list.")
        start = ids.index(after) + 1
    end = start + limit
    return found[start:end], of(found[end - 1]) if end < len(found) else None


def _time(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        value: str | float = float(text)
    except ValueError:
        value = text.replace(" ", "+")  # a plus sign that was not escaped
    try:
        return float(parse_times([value])[0])
    except BadVectors:
        raise Unprocessable(
            f"`{name}` in the query is a time: RFC 3339, or seconds since 1970."
        ) from None


def flag(request: Request, name: str, *, default: bool = False) -> bool:
    """Return a `true` or `false` of the query; Unprocessable for anything else."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if text not in {"true", "false"}:
        raise Unprocessable(f"`{name}` in the query is true or false.")
    return text == "true"
