"""Query parameters of lists: a time range, a page, numbers and flags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from service.api import openapi
from service.domain.row_tags import parse_times
from service.json_value import JsonObject
from service.problems import BadVectors, Unprocessable

PAGE, MOST = 100, 1000

T = TypeVar("T")

# The OpenAPI parameters of paged lists. A request without them gets the whole list: clients of
# earlier releases expect that.
PAGED = {
    "limit": openapi.query(
        "limit", "The size of a page, newest first. Without it the list is whole.", maximum=MOST
    ),
    "after": openapi.query("after", "The `next` of the page before.", type="string"),
}


def pages_of(things: str) -> list[JsonObject]:
    """Return the parameters of a list that always comes in pages, in OpenAPI."""
    most = openapi.query("limit", f"The largest number of {things}.", maximum=MOST, default=PAGE)
    return [PAGED["after"], most]


@dataclass(frozen=True, slots=True)
class Range:
    """The times from `start` up to, but not including, `end`, in seconds since 1970.

    None means that there is no bound on that side.
    """

    start: float | None = None
    end: float | None = None

    def holds(self, first: float, last: float | None = None) -> bool:
        """Return whether the time from `first` to `last` overlaps this range.

        Without `last` it is about the single time `first`.
        """
        last = first if last is None else last
        return (self.end is None or first < self.end) and (self.start is None or last >= self.start)


def time_range(request: Request) -> Range:
    """Return the range `from` to `to` of the query.

    Raises Unprocessable if one is not a time, or if `to` is not after `from`.
    """
    period = Range(_time(request, "from"), _time(request, "to"))
    if period.start is not None and period.end is not None and period.end <= period.start:
        raise Unprocessable("`to` in the query must be after `from`.")
    return period


def whole_number(
    request: Request, name: str, default: int, most: int = MOST, *, least: int = 1
) -> int:
    """Return the whole number `name` of the query, `default` if it is missing.

    Raises Unprocessable if it is not a whole number from `least` to `most`.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 17 and least <= int(text) <= most):
        raise Unprocessable(f"`{name}` in the query must be a whole number from {least} to {most}.")
    return int(text)


def next_page(last: str | int | None) -> dict[str, str | int]:
    """Return the field `next` of a page's answer. It is left out if `last` is None."""
    return {} if last is None else {"next": last}


def is_paged(request: Request) -> bool:
    """Return whether the query has `limit` or `after`. Without both the list is answered whole."""
    return not request.query_params.keys().isdisjoint(PAGED)


def page(
    items: Sequence[T],
    id_of: Callable[[T], str],
    request: Request,
    limit: int,
    no_item: str = "nothing",
) -> tuple[Sequence[T], str | None]:
    """Return at most `limit` items behind the one that `after` in the query names.

    The second value is the id of the page's last item, None on the last page. Raises
    Unprocessable if no item has the id `after`; `no_item` is the word for that in the message.
    """
    after, start = request.query_params.get("after"), 0
    if after is not None:
        ids = [id_of(item) for item in items]
        if after not in ids:
            raise Unprocessable(f"`after` in the query names {no_item} of this list.")
        start = ids.index(after) + 1
    end = start + limit
    return items[start:end], id_of(items[end - 1]) if end < len(items) else None


def listing(
    request: Request, field: str, items: Sequence[T], id_of: Callable[[T], str]
) -> dict[str, Sequence[T] | str | int]:
    """Return a list for an answer: whole and oldest first, or one page of it, newest first."""
    if not is_paged(request):
        return {field: items}
    shown, last = page(items[::-1], id_of, request, whole_number(request, "limit", MOST))
    return {field: shown} | next_page(last)


def _time(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        value: str | float = float(text)
    except ValueError:
        value = text.replace(" ", "+")  # an unescaped plus sign arrives as a space
    try:
        return float(parse_times([value])[0])
    except BadVectors:
        raise Unprocessable(
            f"`{name}` in the query must be a time: RFC 3339, or seconds since 1970."
        ) from None


def flag(request: Request, name: str) -> bool:
    """Return the flag `name` of the query, False if it is missing.

    Raises Unprocessable if it is neither `true` nor `false`.
    """
    text = request.query_params.get(name)
    if text is None:
        return False
    if text not in {"true", "false"}:
        raise Unprocessable(f"`{name}` in the query must be true or false.")
    return text == "true"
