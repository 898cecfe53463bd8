"""Which incident alarming rows belong to, for the drift tests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.domain.incident import Incident
from service.domain.incident_fold import Fold, IncidentChange


class IncidentRows(NamedTuple):
    """The alarming rows that incidents gained in one step, and what people dismissed.

    `rows` counts them by the id of the incident, or of the dismissed pattern that it resembles.
    `dismissed` are the ids of all dismissed patterns.
    """

    rows: Mapping[str, int]
    dismissed: frozenset[str]


def latest(fold: Fold, changes: Sequence[IncidentChange]) -> dict[str, Incident]:
    """Return the latest state of the open and of the changed incidents, by id."""
    incidents = (*(change.incident for change in changes), *fold.open())
    return {incident.id: incident for incident in incidents}


def gained(before: Mapping[str, Incident], after: Mapping[str, Incident]) -> Mapping[str, int]:
    """Return how many rows each incident has more, by its id or that of the pattern it resembles.

    >>> one = Incident("i1", "", 0.0, 9.0, 2.0, 1e-4, 3, 1, 1)
    >>> like = Incident("i2", "", 0.0, 9.0, 2.0, 1e-4, 4, 1, 1, like="i0")
    >>> dict(gained({}, {"i1": one, "i2": like})), dict(gained({"i1": one}, {"i1": one}))
    ({'i1': 3, 'i0': 4}, {})
    """
    rows: Counter[str] = Counter()
    for incident in after.values():
        known = before.get(incident.id)
        rows[incident.like or incident.id] += incident.count - (known.count if known else 0)
    return +rows
