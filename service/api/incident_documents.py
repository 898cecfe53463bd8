"""The types of the answers about anomalies, incidents, labels and history, for OpenAPI."""

from typing import Literal

import msgspec

from service.domain.attribution import Attribution, Cell
from service.domain.detector_status import MuteStatus
from service.domain.generation import Generation
from service.store.processes import ApiProcess


class Event(msgspec.Struct):
    """A recorded anomaly. `client_id`, `timestamp` and `source` are those of the request."""

    id: str
    client_id: str | None
    timestamp: str | None
    source: str | None
    incident: str | None
    at: str | None
    vector: list[Cell]
    score: float
    p_value: float
    severity: float
    version: int
    generation: int
    attributions: list[Attribution]


class Events(msgspec.Struct):
    """Recorded anomalies, newest first."""

    events: list[Event]
    next: str | msgspec.UnsetType = msgspec.UNSET


class Label(msgspec.Struct):
    """A person's label of a vector, or of a recorded anomaly."""

    id: str
    label: Literal["normal", "anomaly"]
    event: str | None
    incident: str | None
    sender: str
    at: str | None
    vector: list[float | None]


class Labels(msgspec.Struct):
    """Labels, newest first."""

    labels: list[Label]
    next: str | msgspec.UnsetType = msgspec.UNSET


class FeedbackAnswer(msgspec.Struct):
    """How many labels were stored, how many vectors are buffered, and how many are held back."""

    labels: int
    normal: int
    anomaly: int
    buffered: int
    quarantined: int
    effect: str | None


class Row(msgspec.Struct):
    """One kept row of an incident."""

    event: str
    client_id: str | None
    at: str
    severity: float
    p_value: float
    score: float
    vector: list[Cell] | None
    attributions: list[Attribution]


class Incident(msgspec.Struct):
    """Rows of one source that alarmed near each other in time, reported as one incident."""

    id: str
    source: str | None
    state: Literal["open", "closed"]
    verdict: Literal["dismissed", "confirmed"] | None
    start: str
    end: str
    peak: float
    count: int
    features: list[Attribution]
    regime: int | None
    version: int
    generation: int
    sentence: str
    pages: bool
    like: str | None
    why: str | None
    decided_by: str | None
    decided_at: str | None
    rows: list[Row] | msgspec.UnsetType = msgspec.UNSET
    effect: str | msgspec.UnsetType = msgspec.UNSET


class Incidents(msgspec.Struct):
    """Incidents, newest first."""

    incidents: list[Incident]
    next: str | msgspec.UnsetType = msgspec.UNSET


class HistoryBucket(msgspec.Struct):
    """The rows scored in one bucket of time, which begins at `at`.

    `regimes` has the share of each regime. Its key `none` has the share of rows in no regime.
    """

    at: str
    rows: int
    alarms: int
    severity_max: float
    severity_p99: float
    severity_p50: float
    generation: int
    regimes: dict[str, float]


class History(msgspec.Struct):
    """Buckets of equal length, oldest first. Empty buckets are left out."""

    buckets: list[HistoryBucket]


class Generations(msgspec.Struct):
    """The moves of the champion, newest first."""

    generations: list[Generation]
    next: int | msgspec.UnsetType = msgspec.UNSET


class MuteAnswer(msgspec.Struct):
    """The end of a detector's mute, its reason, and who muted it."""

    mute: MuteStatus


class AttentionItem(msgspec.Struct):
    """One thing that needs a person, and the path under which to find it."""

    kind: str
    detector: str | None
    sentence: str
    path: str
    since: str | None


class Attention(msgspec.Struct):
    """What needs a person now, worst first."""

    items: list[AttentionItem]


class StoreState(msgspec.Struct):
    """Whether the store answers. `refused` says why writes to it are refused, null if none are."""

    up: bool
    refused: str | None


class WorkerSeen(msgspec.Struct):
    """A worker, and the seconds since its last report."""

    id: str
    heard_seconds: float


class ServiceAnswer(msgspec.Struct):
    """Store, workers and API processes."""

    store: StoreState
    workers: list[WorkerSeen]
    api: list[ApiProcess]
