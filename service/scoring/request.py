"""The parts of a score request, and the parser of its query."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from service.domain.champion import Champion
from service.problems import Unprocessable
from service.scoring import vectors
from service.scoring.tables import ColumnRoles

_VERSION_MAX = 2**31 - 1
_PARAMETERS = frozenset(("version", "explain", "record", "time", "source", "id", "drop", "extra"))


class ScoreRequest(NamedTuple):
    """A request as the client sent it. `pinned` is the loaded version that the query names.

    If the event loop judges the request, `share` is the part of the loop's budget that it takes.
    """

    name: str
    body: bytes
    content_type: str | None = vectors.JSON
    accept: str | None = None
    query: str = ""
    pinned: Champion | None = None
    share: float = 0.0


class QueryOptions(NamedTuple):
    """The options in a query; `explain` is the number of contributions for each row."""

    version: int | None = None
    explain: int | None = None
    record: bool = True
    roles: ColumnRoles = ColumnRoles()


def parse_query(query: str) -> QueryOptions:
    """Return the options in the query. Unknown parameters are ignored. Raises Unprocessable."""
    if not query:
        return QueryOptions()
    fields: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=32)
    except ValueError:
        raise Unprocessable("The query has too many parameters.") from None
    for name, text in pairs:
        if name in fields:
            raise Unprocessable(f"`{name}` in the query is given more than once.")
        if name in _PARAMETERS:
            fields[name] = text
    for name, choices in (("record", ("true", "false")), ("extra", ("drop",))):
        if fields.get(name, choices[0]) not in choices:
            raise Unprocessable(f"`{name}` in the query must be {' or '.join(choices)}.")
    return QueryOptions(
        version=_whole_number(fields, "version"),
        explain=_whole_number(fields, "explain"),
        record=fields.get("record") != "false",
        roles=ColumnRoles(
            time=fields.get("time"),
            source=fields.get("source"),
            id=fields.get("id"),
            drop=tuple(dropped for dropped in fields.get("drop", "").split(",") if dropped),
            extra="extra" in fields,
        ),
    )


def _whole_number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 11 else 0
    if not 1 <= value <= _VERSION_MAX:
        raise Unprocessable(f"`{name}` in the query must be one whole number, at least 1.")
    return value
