"""The record of a version in the store, as it is written and as it is read."""

from typing import Literal, NamedTuple

import msgspec
import orjson
from msgspec import UNSET, Struct, UnsetType

from models import Version
from models.config import Policy
from models.decisions.shadow_result import ShadowResult
from models.errors import ArtifactError
from models.parts.labels import Labels
from models.parts.lineage import Advice, Evidence, KnownRegime, Note, Training
from service.domain.chosen_context import ChosenContext
from service.domain.experience import Experience
from service.json_value import JsonObject
from service.timestamps import rfc3339


class Weights(Struct, frozen=True):
    """The shares of replayed and of new vectors in the training data."""

    w_prev: float
    w_new: float


class ThresholdRecord(Struct, frozen=True):
    """The threshold when the record was made, its p-value, and the policy that determined it."""

    value: float
    alpha: float
    policy: JsonObject


class HeldRate(Struct, frozen=True):
    """The share of calibration normals at or above the threshold, with a confidence interval."""

    rate: float
    low: float
    high: float


class CalibrationRecord(Struct, frozen=True):
    """The calibration of the threshold: its kind, the number of scores, and the rate it holds."""

    kind: str
    scores: int
    held: HeldRate


class GateEvidence(Evidence, frozen=True, kw_only=True):
    """The evidence in a version's lineage, and the result of the shadow stage, if there was one."""

    shadow: ShadowResult | None = None


class GateRecord(Struct, frozen=True):
    """The verdict of the gate, its reasons and its evidence; `policy` is the detector's."""

    policy: str | UnsetType = UNSET
    passed: bool | UnsetType = UNSET
    reasons: tuple[str, ...] = ()
    evidence: GateEvidence | UnsetType = UNSET


class Timings(Struct, frozen=True):
    """Seconds: how long the oldest vector waited, the training took, and the retraining took.

    `total` is the time of the whole retraining, including the training.
    """

    buffered: float
    training: float
    total: float


class NewRecord(Struct, frozen=True, kw_only=True):
    """A version's record without the fields that the store adds; unknown fields are left out.

    The fields are in the order in which they are written.
    """

    who: str = "worker"
    strategy: str | UnsetType = UNSET
    n_prev: int | UnsetType = UNSET
    n_new: int | UnsetType = UNSET
    learned: int | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    training: Training | UnsetType = UNSET
    bytes_kept: int | UnsetType = UNSET
    regimes: tuple[KnownRegime, ...] | UnsetType = UNSET
    probes: tuple[dict[str, float], ...] | UnsetType = UNSET
    advice: Advice | UnsetType = UNSET
    notes: tuple[Note, ...] | UnsetType = UNSET
    weights: Weights | UnsetType = UNSET
    parent_sha256: str | UnsetType | None = UNSET
    dimension: int | UnsetType = UNSET
    threshold: ThresholdRecord | UnsetType = UNSET
    calibration: CalibrationRecord | UnsetType = UNSET
    gate: GateRecord | UnsetType = UNSET
    anchor: int | UnsetType | None = UNSET
    trigger: str | UnsetType = UNSET
    labelled: str | UnsetType = UNSET
    context: ChosenContext | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET
    signature: str | UnsetType = UNSET

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the gate did not pass the version."""
        return self.gate.reasons if self.gate else ()

    def written(self, digest: str, artifact: bytes, experience: Experience | None) -> bytes:
        """Return JSON without its opening brace; a script of the store writes the first fields."""
        document: JsonObject = msgspec.to_builtins(self)
        if experience is None:  # imported
            document = {"parent": None} | document
        else:
            document |= {
                "experience": msgspec.to_builtins(experience.summary()),
                "parent": experience.champion,
            }
        return orjson.dumps(document | {"sha256": digest, "bytes": len(artifact)})[1:]


def describe(version: Version, policy: Policy, labels: Labels | None) -> NewRecord:
    """Return the part of a record that needs only `version`, a policy and labels.

    `policy` is the current threshold policy of the detector. `labels` may decide the threshold.
    If one of them changes later, the threshold changes too.
    """
    lineage, threshold = version.lineage, version.threshold_for(policy, labels)
    false_alarms = version.calibration.false_alarm_rate(threshold.value, lineage.independent)
    return NewRecord(
        strategy=lineage.strategy,
        n_prev=lineage.n_prev,
        n_new=lineage.n_new,
        learned=lineage.learned,
        seed=lineage.seed,
        training=lineage.training,
        bytes_kept=lineage.bytes_kept,
        regimes=lineage.regimes or UNSET,
        probes=lineage.probes or UNSET,
        advice=lineage.advice or UNSET,
        notes=lineage.notes or UNSET,
        weights=Weights(lineage.w_prev, lineage.w_new),
        parent_sha256=lineage.parent,
        dimension=version.dimension,
        threshold=ThresholdRecord(float(threshold.value), float(threshold.alpha), dict(policy)),
        calibration=CalibrationRecord(
            threshold.calibration,
            len(version.calibration.scores),
            HeldRate(*map(float, false_alarms)),
        ),
    )


class GateOutcome(Struct, frozen=True):
    """Whether the gate passed a stored version."""

    passed: bool | None = None


class BufferRange(Struct, frozen=True):
    """The entries of the buffer that a version learned: the range `(first, last]`."""

    first: str | None = None
    last: str | None = None
    batches: tuple[str, ...] = ()


class VersionRecord(Struct, frozen=True, kw_only=True):
    """The fields of a stored record that the service uses; the other fields are only shown.

    `created` is in milliseconds since 1970. Every record that a release wrote has a `sha256`.
    """

    version: int
    outcome: str
    created: float
    sha256: str | None = None
    parent: int | None = None
    parent_sha256: str | None = None
    anchor: int | None = None
    gate: GateOutcome | None = None
    experience: BufferRange | None = None
    signature: str | None = None

    @property
    def anchor_of_successors(self) -> int:
        """The number of the version that the gate compares this champion's successors with.

        It is the first version of the line, or a later one that did not pass the gate by itself:
        a version promoted by hand, promoted under `report` although it failed, or imported.
        """
        passed = self.gate is not None and self.gate.passed
        is_anchor = self.outcome != "promoted" or not passed
        return self.version if is_anchor else self.anchor or self.version


class RevocationMark(Struct, frozen=True):
    """The mark of a version that may not serve any more, because data that it learned was revoked.

    `at` is in milliseconds since 1970. `batch` or `key` names the revoked data.
    """

    at: int
    batch: str | None = None
    key: str | None = None
    who: str = ""
    why: str = ""


_records, _marks = msgspec.json.Decoder(VersionRecord), msgspec.json.Decoder(RevocationMark)
read_mark = _marks.decode


def read_record(text: bytes) -> VersionRecord:
    """Return a stored record. Raises ArtifactError if the record cannot be read."""
    try:
        return _records.decode(text)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"the record of a version cannot be read: {error}") from None


State = Literal["champion", "retired", "rejected", "candidate", "revoked"]


class StoredVersion(NamedTuple):
    """The record of a version with its present state; `text` and `revoked` are JSON."""

    record: VersionRecord
    state: State
    pruned: bool
    text: bytes
    revoked: bytes | None

    def to_dict(self) -> JsonObject:
        """Return the document for an answer."""
        document: JsonObject = orjson.loads(self.text)
        if self.revoked is not None:
            mark = orjson.loads(self.revoked)
            document["revoked"] = mark | {"at": rfc3339(mark["at"] / 1000)}
        del document["created"]
        created = rfc3339(self.record.created / 1000)
        return document | {"state": self.state, "created_at": created, "pruned": self.pruned}


def stored_version(
    text: bytes, champion: int, moved: float | None, digest: bytes | None, revoked: bytes | None
) -> StoredVersion:
    """Return a stored version. `moved` is not None if the version ever was champion."""
    record = read_record(text)
    state: State = "rejected" if record.outcome == "rejected" else "candidate"
    if revoked is not None:
        state = "revoked"
    elif record.version == champion:
        state = "champion"
    elif moved is not None:
        state = "retired"
    return StoredVersion(record, state, digest is None, text, revoked)


def labelled_outcome(evidence: Evidence) -> str | UnsetType:
    """Return the record's part about learned rows with a label `normal`, UNSET without such rows.

    The text also says which share of the synthetic anomalies the candidate finds, and which share
    the champion finds.
    """
    vouched, synthetic = evidence.vouched, evidence.synthetic
    if vouched is None:
        return UNSET
    text = f"of {vouched.n} rows labelled normal, {vouched.still} still alarm"
    if synthetic is not None:
        now, before = (100 * figures.found for figures in (synthetic.candidate, synthetic.champion))
        text += f"; {now:.1f} % of synthetic anomalies are found, {before:.1f} % were found before"
    return text
