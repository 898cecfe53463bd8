"""Tells the drift tests how many alarming rows each incident gained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.domain.incident_fold import Fold, IncidentChange


class IncidentRows(NamedTuple):
    """The alarming rows that incidents gained in one step, and what people dismissed.

    `rows` counts the rows by incident id. Rows of an incident that resembles a dismissed pattern
    count under the id of that pattern. `dismissed` are the ids of all dismissed patterns.
    """

    rows: Mapping[str, int]
    dismissed: frozenset[str]


class RowsSoFar(NamedTuple):
    """The alarming rows of one incident so far.

    `whose` is the id of the incident, or of the dismissed pattern that the incident resembles.
    """

    whose: str
    rows: int


def rows_so_far(fold: Fold, changes: Sequence[IncidentChange]) -> dict[str, RowsSoFar]:
    """Return the rows of each open and each changed incident by its id.

    Rows at the level of a lasting state are rows of the incident that became the state.
    """
    incidents = (*(change.incident for change in changes), *fold.open())
    rows = {one.id: RowsSoFar(one.like or one.id, one.count) for one in incidents}
    for level in (source.level for source in fold.sources.values() if source.level):
        one = level.incident
        rows[one.id] = RowsSoFar(one.like or one.id, one.count + level.rows)
    return rows


def gained(before: Mapping[str, RowsSoFar], after: Mapping[str, RowsSoFar]) -> Mapping[str, int]:
    """Return how many rows were gained, by `RowsSoFar.whose`.

    >>> one, like = RowsSoFar("i1", 3), RowsSoFar("i0", 4)
    >>> dict(gained({}, {"i1": one, "i2": like})), dict(gained({"i1": one}, {"i1": one}))
    ({'i1': 3, 'i0': 4}, {})
    """
    rows: Counter[str] = Counter()
    for incident, (whose, n) in after.items():
        # Less than before: a lasting state ended, and its level's rows are not counted any more.
        rows[whose] += max(0, n - before.get(incident, RowsSoFar(whose, 0)).rows)
    return +rows
