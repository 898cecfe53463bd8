"""What a service answers, as types. `make docs` writes this from OpenAPI."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from service.client.configs import Context, DetectorConfig


class Advice(TypedDict):
    """How to spend a budget of new vectors."""

    budget: int
    send: list[Ask]
    too_few_to_tell: list[int]


class Alarms(TypedDict):
    """The share of vectors on which the candidate alarms, and the champion's, if there is one."""

    candidate: float
    champion: NotRequired[float | None]


class Anchored(TypedDict):
    """The figures of candidate and anchor, and the alarm rates that reveal drift in small steps."""

    anchor: Figures
    candidate: Figures
    n: int
    old: NotRequired[BesideAnchor | None]
    walked: NotRequired[Walked | None]


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


class ApiProcess(TypedDict):
    """An API process, the seconds since its last report, and the generation of each detector."""

    id: str
    heard_seconds: float
    loaded: dict[str, int]


class Ask(TypedDict):
    """How many more vectors of a regime to send, and the expected gain in nats."""

    gain: float
    regime: int
    vectors: int


class AttentionItem(TypedDict):
    """One thing that needs a person, and the path under which to find it."""

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


AuditEntry = TypedDict(
    "AuditEntry",
    {
        "seq": int,
        "at": int,
        "from": Any,
        "to": Any,
        "action": str,
        "who": str,
        "why": str,
        "previous": str,
        "hash": str,
    },
)


class AuditPage(TypedDict):
    """Entries of an audit trail, oldest first."""

    audit: list[AuditEntry]
    broken: int | None
    next: int | None


class Batches(TypedDict):
    """How many vectors there are, in which batches, and from which senders."""

    vectors: int
    batch_count: int
    batches: list[str]
    senders: list[str]


class BesideAnchor(TypedDict):
    """The share of the anchor's normals on which the anchor alarms, and the candidate's share."""

    anchor: float
    candidate: float


class CalibrationRecord(TypedDict):
    """The calibration of the threshold: its kind, the number of scores, and the rate it holds."""

    kind: str
    scores: int
    held: HeldRate


class ChosenContext(TypedDict):
    """The chosen context, or None for no context, and the reason in words."""

    context: Context | None
    why: str
    format: int


class ComparedAlarms(TypedDict):
    """The share of vectors on which the candidate alarms, and the champion's share."""

    candidate: float
    champion: float


class ContextStatus(TypedDict):
    """The context that `context: auto` chose at the first training (null for none), and why."""

    chosen: Context | None
    why: str


class Decided(TypedDict):
    """The decision on a quarantine entry, and how many vectors it concerned."""

    id: str
    decision: Literal["discard", "release"]
    vectors: int


class DetectorStatus(TypedDict):
    """The status of a detector: config, champion, buffer, learning and incidents."""

    name: str
    created_at: str
    config: DetectorConfig
    config_revision: int
    dimension: int | None
    champion: int | None
    generation: int
    loaded: bool
    threshold: float | None
    calibration: Literal["exact", "extrapolated", "insufficient"] | None
    labels: dict[str, int] | None
    ahead_of_store: bool
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
    incidents: IncidentCounts
    incident_calibration: Literal["exact", "insufficient"] | None
    incident_rule: IncidentRule | None
    mute: MuteStatus | None
    waiting: str | None
    regimes: list[RegimeStatus]
    advice: Advice | None
    notes: list[Note]
    queries: list[Query]
    context: ContextStatus | None
    recent: NotRequired[RecentStatus]


class DisputedRow(TypedDict):
    """A vector on which one of the two versions alarms and the other does not."""

    vector: list[float | None]
    candidate: JudgedRow
    champion: JudgedRow


class Drift(TypedDict):
    """The verdict on one version's traffic, and the events to ask a person about."""

    state: Literal["degraded", "known_regime", "new_regime", "none"]
    version: NotRequired[int | None]
    statistics: NotRequired[Statistics | None]
    queries: NotRequired[list[Query] | None]
    at: NotRequired[str | None]
    updated_at: NotRequired[str | None]
    stale: NotRequired[str | None]
    since: NotRequired[str | None]


class Event(TypedDict):
    """A recorded anomaly."""

    id: str
    client_id: str | None
    timestamp: str | None
    source: str | None
    incident: str | None
    at: str | None
    vector: list[float | int | str | None]
    score: float
    p_value: float
    severity: float
    version: int
    generation: int
    attributions: list[Attribution]


class ExperienceSummary(TypedDict):
    """The experience in a version's record: its range in the buffer, and who sent it."""

    first: str
    last: str
    n: int
    batch_count: int
    senders: list[str]
    batches: list[str]
    traces: NotRequired[list[str]]


class FeatureFinding(TypedDict):
    """The result of the test of one feature."""

    feature: str
    statistic: float
    threshold: float
    alarm: bool


class FeedbackAnswer(TypedDict):
    """How many labels were stored, how many vectors are buffered, and how many are held back."""

    labels: int
    normal: int
    anomaly: int
    buffered: int
    quarantined: int
    effect: str | None


class Figures(TypedDict):
    """How well a version finds synthetic anomalies: see `models.decisions.evidence`."""

    apart: float
    auroc: float
    found: float


class Finding(TypedDict):
    """The statistic of a test, its threshold, and whether the test alarms."""

    statistic: float
    threshold: float
    alarm: bool


class Forgets(TypedDict):
    """The vectors that the new champion does not know, and the versions that had learned them."""

    vectors: int
    versions: list[int]


class GateEvidence(TypedDict):
    """The evidence in a version's lineage, and the result of the shadow stage, if there was one."""

    anchor: NotRequired[Anchored | None]
    labelled: NotRequired[Labelled | None]
    n_new: int
    n_old: NotRequired[int | None]
    new: Alarms
    old: NotRequired[ComparedAlarms | None]
    synthetic: NotRequired[Synthetic | None]
    unlearned: NotRequired[float | None]
    vouched: NotRequired[Vouched | None]
    shadow: NotRequired[ShadowResult | None]


class GateRecord(TypedDict):
    """The verdict of the gate, its reasons and its evidence."""

    policy: NotRequired[str]
    passed: NotRequired[bool]
    reasons: list[str]
    evidence: NotRequired[GateEvidence]


Generation = TypedDict(
    "Generation",
    {
        "generation": int,
        "version": int | None,
        "from": int | None,
        "action": Literal["promote", "rollback"],
        "at": str,
        "who": str,
        "why": str,
    },
)


class Health(TypedDict):
    """The state of the process, the number of loaded champions, and whether a worker runs."""

    status: Literal["degraded", "ok", "ready"]
    champions: NotRequired[int]
    worker: NotRequired[bool]
    why: NotRequired[str]


class HeldRate(TypedDict):
    """The share of calibration normals at or above the threshold, with a confidence interval."""

    rate: float
    low: float
    high: float


class HistoryBucket(TypedDict):
    """The rows scored in one bucket of time, which begins at `at`."""

    at: str
    rows: int
    alarms: int
    severity_max: float
    severity_p99: float
    severity_p50: float
    generation: int
    regimes: dict[str, float]


class Incident(TypedDict):
    """Rows of one source that alarmed near each other in time, reported as one incident."""

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


class IncidentCounts(TypedDict):
    """How many open incidents page people, and how many are open in all."""

    open: int
    unfinished: int


class IncidentRule(TypedDict):
    """The rule that opens incidents."""

    calibration: Literal["exact", "insufficient"]
    alarming_rows: int
    of_rows: int
    severity_alone: float
    asked_per_day: float
    held_per_day: float | None
    held_low: float | None
    held_high: float | None
    counted_rows: int
    needed_rows: int | None


class JudgedRow(TypedDict):
    """One version's judgement of one vector."""

    score: float
    p_value: float
    is_anomaly: bool


class KnownRegime(TypedDict):
    """What a lineage says of one regime."""

    alarms: NotRequired[ComparedAlarms | None]
    curve: LearningCurve | None
    novel: NotRequired[float | None]
    number: int
    replayed: NotRequired[int | None]
    score_change: NotRequired[float | None]
    seen: int
    size: int
    typical: list[Typical]


class Label(TypedDict):
    """A person's label of a vector, or of a recorded anomaly."""

    id: str
    label: Literal["anomaly", "normal"]
    event: str | None
    incident: str | None
    sender: str
    at: str | None
    vector: list[float | None]


class Labelled(TypedDict):
    """How the versions judge labelled vectors."""

    anchor: NotRequired[OwnAlarms | None]
    anomalies: int
    candidate: NotRequired[OwnAlarms | None]
    champion: NotRequired[OwnAlarms | None]
    kept: int
    known: int
    normals: int


class LastRetraining(TypedDict):
    """The outcome of the last retraining."""

    outcome: Literal["failed", "promoted", "rejected"]
    version: int | None
    finished_at: str | None
    reasons: list[str]
    seconds: float | None
    labelled: NotRequired[str]


class LearningCurve(TypedDict):
    """The loss after n vectors, in nats a vector: `floor + scale * n ** -exponent`."""

    exponent: float
    floor: float
    scale: float


class MixFinding(TypedDict):
    """How far the mix of regimes moved."""

    statistic: float
    threshold: float
    alarm: bool
    none: float | None
    known: list[RegimeShare]


class MuteAnswer(TypedDict):
    """The end of a detector's mute, its reason, and who muted it."""

    mute: MuteStatus


class MuteStatus(TypedDict):
    """Until when (RFC 3339) a detector pages nobody, why, and who muted it."""

    until: str | None
    why: str
    who: str


class NormalAnswer(TypedDict):
    """How many rows of a normal batch were accepted, quarantined or stored before."""

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int
    why: NotRequired[str]


class Note(TypedDict):
    """A remark for people about the data that a version learned: see `models.survey.notes`."""

    features: list[str]
    kind: str
    sentence: str


class OwnAlarms(TypedDict):
    """The share of the vectors labelled normal on which a version alarms."""

    alarms: float


class Promoted(TypedDict):
    """The champion after a move by hand."""

    champion: int
    generation: int
    forgets: Forgets
    labels: StandingLabels
    effect: str


class QuarantineEntry(TypedDict):
    """An entry that waits for a person: an experience, or rows of a normal batch."""

    id: str
    kind: Literal["experience", "rows"]
    vectors: int
    reason: str
    version: int | None
    parked_at: str
    decision: Literal["discard", "release"] | None
    batch_id: NotRequired[str]
    sender: NotRequired[str]


class QuarantinedRows(TypedDict):
    """The first rows of a quarantine entry."""

    id: str
    vectors: list[list[float | int | str | None]]


class Query(TypedDict):
    """The id of an event whose label would help the detector, and the reason."""

    event: str
    reason: str


class RecentStatus(TypedDict):
    """When the champion began to serve (RFC 3339), and rows and alarms of the last hour."""

    champion_since: str | None
    rows: int
    alarms: int


class RegimeShare(TypedDict):
    """One regime's share of learned and of live rows."""

    regime: int
    learned: float
    live: float | None
    state: Literal["absent", "present", "returning", "unknown"]


class RegimeStatus(TypedDict):
    """One regime that the champion knows."""

    regime: int
    size: int
    learned: float
    seen: int
    live: float | None
    state: Literal["absent", "present", "returning", "unknown"]
    forgetting: float | None
    score_change: float | None
    typical: list[Typical]


class RetrainAnswer(TypedDict):
    """A queued retraining, or the outcome of one that ended before `wait` was over."""

    retraining: NotRequired[Retraining]
    buffered: NotRequired[int]
    note: NotRequired[str]
    last_retraining: NotRequired[LastRetraining]


class Retraining(TypedDict):
    """Whether a retraining is queued or running."""

    state: Literal["idle", "queued", "running"]
    progress: float
    seconds_left: float | None
    loss_old: float | None
    loss_new: float | None


class Retrains(TypedDict):
    """How many retrainings ended with each outcome."""

    promoted: int
    rejected: int
    failed: int


class Revocation(TypedDict):
    """Why a version may no longer serve: it learned rows of a batch or key that was revoked."""

    at: str | None
    who: str
    why: str
    batch: NotRequired[str]
    key: NotRequired[str]


class Revoked(TypedDict):
    """The result of a revocation."""

    dry_run: bool
    champion: int | None
    generation: int
    versions: list[int]
    discarded: dict[str, int]
    lost: Batches
    relearned: Batches
    labels: NotRequired[int]


class Row(TypedDict):
    """One kept row of an incident."""

    event: str
    client_id: str | None
    at: str
    severity: float
    p_value: float
    score: float
    vector: list[float | int | str | None] | None
    attributions: list[Attribution]


class Sample(TypedDict):
    """Vectors drawn from a version's generator, and the typical one of each of its regimes."""

    version: int
    features: list[str]
    vectors: list[list[float | int | str | None]]
    seed: int
    typical: list[TypicalVector]


class ScoreAnswer(TypedDict):
    """The scores of a request."""

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

    store: StoreState
    workers: list[WorkerSeen]
    api: list[ApiProcess]


class ShadowResult(TypedDict):
    """The shares of `n` live vectors on which each version alarms."""

    asked: int
    n: int
    candidate: NotRequired[float | None]
    champion: NotRequired[float | None]
    disagree: NotRequired[int | None]
    rows: NotRequired[list[DisputedRow] | None]


class StandingLabels(TypedDict):
    """How many labels still have an effect after a move of the champion."""

    normal: int
    anomaly: int
    unlearned: int
    spared: int


class Statistics(TypedDict):
    """The results of all tests."""

    martingale: NotRequired[Finding | None]
    adwin: NotRequired[Finding | None]
    anomalies: NotRequired[Finding | None]
    features: list[FeatureFinding]
    inputs: NotRequired[Finding | None]
    regimes: NotRequired[MixFinding | None]


class StoreState(TypedDict):
    """Whether the store answers."""

    up: bool
    refused: str | None


class Synthetic(TypedDict):
    """The figures of candidate and champion."""

    candidate: Figures
    champion: Figures
    n: int


class ThresholdRecord(TypedDict):
    """The threshold when the record was made, its p-value, and the policy that determined it."""

    value: float
    alpha: float
    policy: dict[str, Any]


class Timings(TypedDict):
    """Seconds: how long the oldest vector waited, the training took, and the retraining took."""

    buffered: float
    training: float
    total: float


class Training(TypedDict):
    """How the network was trained."""

    batch_size: NotRequired[int | None]
    learning_rate: NotRequired[float | None]
    loss: NotRequired[list[float] | None]
    networks: NotRequired[int | None]
    regimes: NotRequired[int | None]
    steps: int


class Typical(TypedDict):
    """A feature by which a typical vector stands out, and its value there."""

    feature: str
    value: float


class TypicalVector(TypedDict):
    """The typical vector of a regime: the mean that the model decodes at its centre."""

    regime: int
    vector: list[float | int | str | None]


class VersionRecord(TypedDict):
    """A version's lineage, threshold, gate verdict and state."""

    who: str
    strategy: NotRequired[str]
    n_prev: NotRequired[int]
    n_new: NotRequired[int]
    learned: NotRequired[int]
    seed: NotRequired[int]
    training: NotRequired[Training]
    bytes_kept: NotRequired[int]
    regimes: NotRequired[list[KnownRegime]]
    probes: NotRequired[list[dict[str, float]]]
    advice: NotRequired[Advice]
    notes: NotRequired[list[Note]]
    weights: NotRequired[Weights]
    parent_sha256: NotRequired[str | None]
    dimension: NotRequired[int]
    threshold: NotRequired[ThresholdRecord]
    calibration: NotRequired[CalibrationRecord]
    gate: NotRequired[GateRecord]
    anchor: NotRequired[int | None]
    trigger: NotRequired[str]
    labelled: NotRequired[str]
    context: NotRequired[ChosenContext]
    timings: NotRequired[Timings]
    signature: NotRequired[str]
    version: int
    state: Literal["candidate", "champion", "rejected", "retired", "revoked"]
    outcome: str
    sha256: str
    created_at: str | None
    pruned: bool
    parent: NotRequired[int | None]
    bytes: NotRequired[int]
    experience: NotRequired[ExperienceSummary]
    w_prev: NotRequired[float | None]
    w_new: NotRequired[float | None]
    revoked: NotRequired[Revocation]


class Vouched(TypedDict):
    """How many of an experience's rows labelled normal still alarm: `still` of `n`."""

    n: int
    still: int


class Walked(TypedDict):
    """The share of `n` new normals on which the anchor alarms, and the champion's share."""

    anchor: float
    champion: float
    n: int
    unexplained: float


class Weights(TypedDict):
    """The shares of replayed and of new vectors in the training data."""

    w_prev: float
    w_new: float


class Work(TypedDict):
    """How many detectors wait for a retraining, how many are retrained, and the longest wait."""

    due: int
    running: int
    oldest_seconds: float


class WorkerSeen(TypedDict):
    """A worker, and the seconds since its last report."""

    id: str
    heard_seconds: float
