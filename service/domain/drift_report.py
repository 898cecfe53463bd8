"""What the drift monitor publishes about a detector."""

from msgspec import Struct

from models.drift.finding import State, Statistics


class Query(Struct, frozen=True):
    """The id of an event whose label would help the detector, and the reason."""

    event: str
    reason: str


class Drift(Struct, frozen=True, omit_defaults=True):
    """The verdict on one version's traffic, and the events to ask a person about.

    `at` and `updated_at` (RFC 3339) are the time of publication. `since` is when the present state
    began, None if unknown. `stale` says why there is no newer verdict. Before the first verdict
    only `state` is set.
    """

    state: State
    version: int | None = None
    statistics: Statistics | None = None
    queries: tuple[Query, ...] | None = None
    at: str | None = None
    updated_at: str | None = None
    stale: str | None = None
    since: str | None = None


NO_DRIFT = Drift("none")
