"""What a service answers, as types. `make docs` writes this from OpenAPI."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from service.client.configs import DetectorConfig


class ApiKey(TypedDict):
    """What an API key allows."""

    id: str
    name: str
    scopes: list[str]
    detectors: list[str] | None
    requests_per_second: float | None
    max_body_bytes: int | None
    created_at: str | None
    key: NotRequired[str]


class ApiKeys(TypedDict):
    """The stored API keys, oldest first."""

    keys: list[ApiKey]
    next: NotRequired[str]


class Attention(TypedDict):
    """What needs a person now, worst first."""

    items: list[AttentionItem]


class AttentionItem(TypedDict):
    """One thing that needs a person, and where to look."""

    kind: str
    detector: str | None
    sentence: str
    path: str
    since: str | None


class Attribution(TypedDict):
    """How much one feature contributed to a row's score, with the value seen and expected."""

    feature: str
    contribution: float
    value: float | int | str | None
    expected: float | int | str | None


class AuditEntry(TypedDict):
    """One change, chained to the one before it by its hash."""

    seq: int
    at: int
    action: str
    who: str
    why: str
    previous: str
    hash: str


class AuditPage(TypedDict):
    """Entries of an audit trail, oldest first."""

    audit: list[AuditEntry]
    broken: int | None
    next: int | None


class Decided(TypedDict):
    """What became of a quarantine entry."""

    id: str
    decision: Literal["discard", "release"]
    vectors: int


class DetectorStatus(TypedDict):
    """A detector: its config, what it serves, what it holds and how its learning goes."""

    name: str
    created_at: str | None
    config: DetectorConfig
    config_revision: int
    dimension: int | None
    champion: int | None
    generation: int
    loaded: bool
    threshold: float | None
    calibration: Literal["exact", "extrapolated", "insufficient"] | None
    labels: dict[str, Any] | None
    last_version: int
    buffered: int
    quarantined: int
    parked: int
    thinned: int
    learned: int
    needed: int
    retraining: Retraining
    last_retraining: LastRetraining | None
    retrains: Retrains
    drift: Drift
    regimes: list[dict[str, Any]]
    advice: dict[str, Any] | None
    notes: list[Note]
    queries: list[dict[str, Any]]


class Detectors(TypedDict):
    """The status of each detector, by name."""

    detectors: list[DetectorStatus]
    next: NotRequired[str]


class Drift(TypedDict):
    """The drift state, with the statistic, threshold and verdict of every test."""

    state: str
    at: NotRequired[str | None]
    stale: NotRequired[str]
    version: NotRequired[int | None]
    statistics: NotRequired[dict[str, Any]]


class Event(TypedDict):
    """A recorded anomaly."""

    id: str
    client_id: str | None
    timestamp: str | None
    source: str | None
    incident: str | None
    at: str | None
    vector: list[float | None]
    score: float
    p_value: float
    severity: float
    version: int
    generation: int
    attributions: list[Attribution]


class Events(TypedDict):
    """Recorded anomalies, newest first."""

    events: list[Event]
    next: NotRequired[str]


class FeedbackAnswer(TypedDict):
    """How many labels were kept, how many vectors are buffered now, and how many were held b."""

    labels: int
    normal: int
    anomaly: int
    buffered: int
    quarantined: int
    effect: str | None


class Forgets(TypedDict):
    """What a move of the champion leaves behind."""

    vectors: int
    versions: list[int]


class Generation(TypedDict):
    """One move of the champion: to `version`, by whom and why."""

    generation: int
    version: int | None
    action: str
    at: str
    who: str
    why: str


class Generations(TypedDict):
    """The moves of the champion, newest first."""

    generations: list[Generation]
    next: NotRequired[int]


class Health(TypedDict):
    """Whether the process lives, or can serve, how many champions are loaded, and if a worke."""

    status: Literal["degraded", "ok", "ready"]
    champions: NotRequired[int]
    worker: NotRequired[bool]
    why: NotRequired[str]


class History(TypedDict):
    """Buckets of equal length, oldest first."""

    buckets: list[HistoryBucket]


class HistoryBucket(TypedDict):
    """What was scored from `at` on."""

    at: str
    rows: int
    alarms: int
    severity_max: float
    severity_p99: float
    severity_p50: float
    generation: int
    regimes: dict[str, float]


class Incident(TypedDict):
    """Rows of one source that alarmed near each other in time, as one thing to look at."""

    id: str
    source: str | None
    state: Literal["closed", "open"]
    verdict: Literal["confirmed", "dismissed"] | None
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
    rows: NotRequired[list[Row]]
    effect: NotRequired[str]


class Incidents(TypedDict):
    """Incidents, newest first."""

    incidents: list[Incident]
    next: NotRequired[str]


class Label(TypedDict):
    """What a person said of a vector, or of a recorded anomaly."""

    id: str
    label: Literal["anomaly", "normal"]
    event: str | None
    incident: str | None
    sender: str
    at: str | None
    vector: list[float | None]


class Labels(TypedDict):
    """Labels, newest first."""

    labels: list[Label]
    next: NotRequired[str]


class LastRetraining(TypedDict):
    """How the last retraining ended."""

    outcome: Literal["failed", "promoted", "rejected"]
    version: int | None
    reasons: list[str]
    seconds: float | None
    finished_at: str | None
    labelled: NotRequired[str]


class MuteAnswer(TypedDict):
    """Until when a detector is muted, why, and by whom."""

    mute: dict[str, Any]


class NormalAnswer(TypedDict):
    """What became of a normal batch."""

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int
    why: NotRequired[str]


class Note(TypedDict):
    """What to know of the data that a version learned, and what to do about it."""

    kind: str
    features: list[str]
    sentence: str


class Problem(TypedDict):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    row: NotRequired[int]
    column: NotRequired[int]


class Promoted(TypedDict):
    """The champion after a move by hand."""

    champion: int
    generation: int
    forgets: Forgets


class Quarantine(TypedDict):
    """What is held back, oldest first."""

    quarantine: list[QuarantineEntry]
    next: NotRequired[str]


class QuarantineEntry(TypedDict):
    """What waits for a person: an experience, or rows of a normal batch."""

    id: str
    kind: str
    vectors: int
    decision: NotRequired[str | None]


class QuarantinedRows(TypedDict):
    """The first rows of a quarantine entry."""

    id: str
    vectors: list[list[float | None]]


class RetrainAnswer(TypedDict):
    """A retraining that is queued, or the outcome of one that ended in time."""

    retraining: NotRequired[Retraining]
    buffered: NotRequired[int]
    note: NotRequired[str]
    last_retraining: NotRequired[LastRetraining]


class Retraining(TypedDict):
    """Whether a retraining runs, and how far it is."""

    state: Literal["idle", "queued", "running"]
    progress: float
    seconds_left: float | None
    loss_old: float | None
    loss_new: float | None


class Retrains(TypedDict):
    """How many retrainings ended how."""

    promoted: int
    rejected: int
    failed: int


class Revoked(TypedDict):
    """What a revocation came to, or would come to with `dry_run`."""

    dry_run: bool
    champion: int | None
    versions: list[int]
    discarded: NotRequired[dict[str, int]]
    lost: NotRequired[dict[str, Any]]
    relearned: NotRequired[dict[str, Any]]
    generation: NotRequired[int]


class Row(TypedDict):
    """One kept row of an incident."""

    event: str
    client_id: str | None
    at: str
    severity: float
    p_value: float
    score: float
    vector: list[float | None] | None
    attributions: list[Attribution]


class Sample(TypedDict):
    """Vectors drawn from a version's generator."""

    version: int
    features: list[str]
    vectors: list[list[float]]
    seed: int


class ScoreAnswer(TypedDict):
    """One entry a row in every column."""

    detector: str
    version: int
    generation: int
    config_revision: int
    threshold: float
    calibration: Literal["exact", "extrapolated", "insufficient"]
    scores: list[float | None]
    p_values: list[float | None]
    severities: list[float | None]
    is_anomaly: list[bool | None]
    states: NotRequired[list[Literal["context", "ignored", "late", "off", "scored", "warming"]]]
    attributions: NotRequired[list[list[Attribution]]]
    judged_by: NotRequired[str]


class ServiceAnswer(TypedDict):
    """Store, workers and API processes."""

    store: dict[str, Any]
    workers: list[dict[str, Any]]
    api: list[dict[str, Any]]


class SessionAnswer(TypedDict):
    """A browser's session: what its pages send with every change, and what it may do."""

    csrf: str
    scopes: list[str]


class VersionRecord(TypedDict):
    """A version's lineage, threshold, gate verdict and state."""

    version: int
    state: Literal["champion", "imported", "rejected", "retired", "revoked"]
    outcome: str
    sha256: str
    created_at: str | None
    parent: NotRequired[int | None]
    strategy: NotRequired[str]
    w_prev: NotRequired[float | None]
    w_new: NotRequired[float | None]
    n_prev: NotRequired[int | None]
    n_new: NotRequired[int | None]
    seed: NotRequired[int | None]
    threshold: NotRequired[dict[str, Any]]
    gate: NotRequired[dict[str, Any] | None]
    notes: NotRequired[list[Note]]
    weights: NotRequired[dict[str, float | None]]
    training: NotRequired[dict[str, Any]]


class Versions(TypedDict):
    """The records of a detector's versions, oldest first."""

    versions: list[VersionRecord]
    next: NotRequired[str | int]


class Work(TypedDict):
    """How many detectors are due for a retraining, and how many are being retrained."""

    due: int
    running: int
    oldest_seconds: float
