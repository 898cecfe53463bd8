"""What answers look like: the component schemas of the OpenAPI document.

Nothing here is made at run time. The contract tests hold every answer against these.
"""

from typing import Annotated, Any, Literal

import msgspec

Calibration = Literal["exact", "extrapolated", "insufficient"]
Cell = float | int | str | None
# Described by pydantic, which reads it.
ConfigReference = Annotated[
    dict[str, Any],
    msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/DetectorConfig"}),
]


class Problem(msgspec.Struct):
    """RFC 9457. Rows and columns count from zero. The payload is never repeated."""

    type: str
    title: str
    status: int
    detail: str
    row: int | msgspec.UnsetType = msgspec.UNSET
    column: int | msgspec.UnsetType = msgspec.UNSET


class Attribution(msgspec.Struct):
    """How much one feature contributed to a row's score, with the value seen and expected."""

    feature: str
    contribution: float
    value: Cell
    expected: Cell


class ScoreAnswer(msgspec.Struct):
    """One entry a row in every column."""

    detector: str
    version: int
    generation: int
    config_revision: int
    threshold: float
    calibration: Calibration
    scores: list[float | None]
    p_values: list[float | None]
    severities: list[float | None]
    is_anomaly: list[bool | None]
    states: (
        list[Literal["scored", "warming", "context", "off", "ignored", "late"]] | msgspec.UnsetType
    ) = msgspec.UNSET
    attributions: list[list[Attribution]] | msgspec.UnsetType = msgspec.UNSET
    judged_by: str | msgspec.UnsetType = msgspec.UNSET


class NormalAnswer(msgspec.Struct):
    """What became of a normal batch."""

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int
    why: str | msgspec.UnsetType = msgspec.UNSET


class Retraining(msgspec.Struct):
    """Whether a retraining runs, and how far it is.

    While it runs: the seconds left, and the latest loss (nats) on old and on new vectors.
    """

    state: Literal["idle", "queued", "running"]
    progress: float
    seconds_left: float | None
    loss_old: float | None
    loss_new: float | None


class LastRetraining(msgspec.Struct):
    """How the last retraining ended."""

    outcome: Literal["promoted", "rejected", "failed"]
    version: int | None
    reasons: list[str]
    seconds: float | None
    finished_at: str | None
    labelled: str | msgspec.UnsetType = msgspec.UNSET


class Retrains(msgspec.Struct):
    """How many retrainings ended how."""

    promoted: int
    rejected: int
    failed: int


class Drift(msgspec.Struct):
    """The drift state, with the statistic, threshold and verdict of every test.

    `at` is when it was computed; `stale` says why nothing newer was, where that is known.
    """

    state: str
    at: str | msgspec.UnsetType | None = msgspec.UNSET
    stale: str | msgspec.UnsetType = msgspec.UNSET
    version: int | msgspec.UnsetType | None = msgspec.UNSET
    statistics: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Note(msgspec.Struct):
    """What to know of the data that a version learned, and what to do about it."""

    kind: str
    features: list[str]
    sentence: str


class DetectorStatus(msgspec.Struct):
    """A detector: its config, what it serves, what it holds and how its learning goes."""

    name: str
    created_at: str | None
    config: ConfigReference
    config_revision: int
    dimension: int | None
    champion: int | None
    generation: int
    loaded: bool
    threshold: float | None
    calibration: Calibration | None
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


class Detectors(msgspec.Struct):
    """The status of each detector, by name; `next` is `after` for the next page."""

    detectors: list[DetectorStatus]
    next: str | msgspec.UnsetType = msgspec.UNSET


class RetrainAnswer(msgspec.Struct):
    """A retraining that is queued, or the outcome of one that ended in time."""

    retraining: Retraining | msgspec.UnsetType = msgspec.UNSET
    buffered: int | msgspec.UnsetType = msgspec.UNSET
    note: str | msgspec.UnsetType = msgspec.UNSET
    last_retraining: LastRetraining | msgspec.UnsetType = msgspec.UNSET


class Sample(msgspec.Struct):
    """Vectors drawn from a version's generator."""

    version: int
    features: list[str]
    vectors: list[list[float]]
    seed: int


class VersionRecord(msgspec.Struct):
    """A version's lineage, threshold, gate verdict and state."""

    version: int
    state: Literal["champion", "retired", "rejected", "imported", "revoked"]
    outcome: str
    sha256: str
    created_at: str | None
    parent: int | msgspec.UnsetType | None = msgspec.UNSET
    strategy: str | msgspec.UnsetType = msgspec.UNSET
    w_prev: float | msgspec.UnsetType | None = msgspec.UNSET
    w_new: float | msgspec.UnsetType | None = msgspec.UNSET
    n_prev: int | msgspec.UnsetType | None = msgspec.UNSET
    n_new: int | msgspec.UnsetType | None = msgspec.UNSET
    seed: int | msgspec.UnsetType | None = msgspec.UNSET
    threshold: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    gate: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    notes: list[Note] | msgspec.UnsetType = msgspec.UNSET
    weights: dict[str, float | None] | msgspec.UnsetType = msgspec.UNSET
    training: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Versions(msgspec.Struct):
    """The records of a detector's versions, oldest first."""

    versions: list[VersionRecord]
    next: str | int | msgspec.UnsetType = msgspec.UNSET


class Forgets(msgspec.Struct):
    """What a move of the champion leaves behind."""

    vectors: int
    versions: list[int]


class Promoted(msgspec.Struct):
    """The champion after a move by hand."""

    champion: int
    generation: int
    forgets: Forgets


class QuarantineEntry(msgspec.Struct):
    """What waits for a person: an experience, or rows of a normal batch."""

    id: str
    kind: str
    vectors: int
    decision: str | None = None


class Quarantine(msgspec.Struct):
    """What is held back, oldest first."""

    quarantine: list[QuarantineEntry]
    next: str | msgspec.UnsetType = msgspec.UNSET


class QuarantinedRows(msgspec.Struct):
    """The first rows of a quarantine entry."""

    id: str
    vectors: list[list[float | None]]


class Decided(msgspec.Struct):
    """What became of a quarantine entry."""

    id: str
    decision: Literal["release", "discard"]
    vectors: int


class Revoked(msgspec.Struct):
    """What a revocation came to, or would come to with `dry_run`."""

    dry_run: bool
    champion: int | None
    versions: list[int]
    discarded: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    lost: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    relearned: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    generation: int | msgspec.UnsetType = msgspec.UNSET


class ApiKey(msgspec.Struct):
    """What an API key allows; the secret itself is shown once, as `key`, when it is made."""

    id: str
    name: str
    scopes: list[str]
    detectors: list[str] | None
    requests_per_second: float | None
    max_body_bytes: int | None
    created_at: str | None
    key: str | msgspec.UnsetType = msgspec.UNSET


class ApiKeys(msgspec.Struct):
    """The stored API keys, oldest first."""

    keys: list[ApiKey]
    next: str | msgspec.UnsetType = msgspec.UNSET


class AuditEntry(msgspec.Struct):
    """One change, chained to the one before it by its hash."""

    seq: int
    at: int
    action: str
    who: str
    why: str
    previous: str
    hash: str


class AuditPage(msgspec.Struct):
    """Entries of an audit trail, oldest first; `broken` is the first that does not follow."""

    audit: list[AuditEntry]
    broken: int | None
    next: int | None


class Health(msgspec.Struct):
    """Whether the process lives, or can serve, how many champions are loaded, and if a worker runs.

    `worker` is whether one was heard of within the last 10 s; without the store nobody knows. `why`
    says what a `degraded` process misses.
    """

    status: Literal["ok", "ready", "degraded"]
    champions: int | msgspec.UnsetType = msgspec.UNSET
    worker: bool | msgspec.UnsetType = msgspec.UNSET
    why: str | msgspec.UnsetType = msgspec.UNSET


class Work(msgspec.Struct):
    """How many detectors are due for a retraining, and how many are being retrained."""

    due: int
    running: int
    oldest_seconds: float


class SessionAnswer(msgspec.Struct):
    """A browser's session: what its pages send with every change, and what it may do."""

    csrf: str
    scopes: list[str]
