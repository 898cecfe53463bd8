"""The types of the answers: the component schemas of the OpenAPI document.

The contract tests check every answer against these types, and against the types of
`service.domain` and `service.store` that are answers themselves (`ANSWERS`).
"""

from typing import Literal

import msgspec

from models.parts.calibration import Support
from service.domain.attribution import Attribution, Cell
from service.domain.audit_chain import AuditEntry
from service.domain.detector import LastRetraining, Retraining
from service.domain.detector_status import BrokenStatus, DetectorStatus
from service.domain.drift_report import Drift
from service.domain.experience import ExperienceSummary
from service.domain.quarantine_entry import QuarantineEntry
from service.domain.revocation_plan import Revoked
from service.domain.standing_labels import StandingLabels
from service.domain.version_record import NewRecord
from service.store.due_index import Work

ANSWERS = (AuditEntry, Attribution, BrokenStatus, DetectorStatus, Drift, Revoked, Work)


class Problem(msgspec.Struct):
    """An error (RFC 9457). Rows and columns count from zero. Values of the request are left out."""

    type: str
    title: str
    status: int
    detail: str
    row: int | msgspec.UnsetType = msgspec.UNSET
    column: int | msgspec.UnsetType = msgspec.UNSET


class ScoreAnswer(msgspec.Struct):
    """The scores of a request. Each field is one column, with one entry for each row."""

    detector: str
    version: int
    generation: int
    config_revision: int
    threshold: float
    calibration: Support
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
    """How many rows of a normal batch were accepted, quarantined or stored before."""

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int
    why: str | msgspec.UnsetType = msgspec.UNSET


class Detectors(msgspec.Struct):
    """The status of each detector, by name. To get the next page, send `next` as `after`."""

    detectors: list[DetectorStatus]
    next: str | msgspec.UnsetType = msgspec.UNSET


class RetrainAnswer(msgspec.Struct):
    """A queued retraining, or the outcome of one that ended before `wait` was over."""

    retraining: Retraining | msgspec.UnsetType = msgspec.UNSET
    buffered: int | msgspec.UnsetType = msgspec.UNSET
    note: str | msgspec.UnsetType = msgspec.UNSET
    last_retraining: LastRetraining | msgspec.UnsetType = msgspec.UNSET


class TypicalVector(msgspec.Struct):
    """The typical vector of a regime: the mean that the model decodes at its centre."""

    regime: int
    vector: list[Cell]


class Sample(msgspec.Struct):
    """Vectors drawn from a version's generator, and the typical one of each of its regimes."""

    version: int
    features: list[str]
    vectors: list[list[Cell]]
    seed: int
    typical: list[TypicalVector]


class Revocation(msgspec.Struct):
    """Why a version may no longer serve: it learned rows of a batch or key that was revoked."""

    at: str | None
    who: str
    why: str
    batch: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET


class VersionRecord(NewRecord, frozen=True, kw_only=True):
    """A version's lineage, threshold, gate verdict and state.

    `experience` names the buffer entries that the version learned. `w_prev` and `w_new` have the
    values of `weights`.
    """

    version: int
    state: Literal["champion", "retired", "rejected", "candidate", "revoked"]
    outcome: str
    sha256: str
    created_at: str | None
    pruned: bool
    parent: int | msgspec.UnsetType | None = msgspec.UNSET
    bytes: int | msgspec.UnsetType = msgspec.UNSET
    experience: ExperienceSummary | msgspec.UnsetType = msgspec.UNSET
    w_prev: float | msgspec.UnsetType | None = msgspec.UNSET
    w_new: float | msgspec.UnsetType | None = msgspec.UNSET
    revoked: Revocation | msgspec.UnsetType = msgspec.UNSET


class Versions(msgspec.Struct):
    """The records of a detector's versions, oldest first."""

    versions: list[VersionRecord]
    next: str | int | msgspec.UnsetType = msgspec.UNSET


class Forgets(msgspec.Struct):
    """The vectors that the new champion does not know, and the versions that had learned them."""

    vectors: int
    versions: list[int]


class Promoted(msgspec.Struct):
    """The champion after a move by hand. `effect` says in words what changes."""

    champion: int
    generation: int
    forgets: Forgets
    labels: StandingLabels
    effect: str


class Quarantine(msgspec.Struct):
    """The entries of the quarantine, oldest first."""

    quarantine: list[QuarantineEntry]
    next: str | msgspec.UnsetType = msgspec.UNSET


class QuarantinedRows(msgspec.Struct):
    """The first rows of a quarantine entry."""

    id: str
    vectors: list[list[Cell]]


class Decided(msgspec.Struct):
    """The decision on a quarantine entry, and how many vectors it concerned."""

    id: str
    decision: Literal["release", "discard"]
    vectors: int


class ApiKey(msgspec.Struct):
    """What an API key allows. The secret, `key`, is shown only when the key is made."""

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


class AuditPage(msgspec.Struct):
    """Entries of an audit trail, oldest first.

    `broken` is the number of the first entry whose hash does not match the entry before it.
    """

    audit: list[AuditEntry]
    broken: int | None
    next: int | None


class Health(msgspec.Struct):
    """The state of the process, the number of loaded champions, and whether a worker runs.

    `worker` says whether a worker reported within the last 10 s. It is left out if the store does
    not answer. `why` says what a `degraded` process lacks.
    """

    status: Literal["ok", "ready", "degraded"]
    champions: int | msgspec.UnsetType = msgspec.UNSET
    worker: bool | msgspec.UnsetType = msgspec.UNSET
    why: str | msgspec.UnsetType = msgspec.UNSET


class SessionAnswer(msgspec.Struct):
    """A browser's session: the token that its pages send with every change, and its scopes."""

    csrf: str
    scopes: list[str]
