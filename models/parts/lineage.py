"""A version's lineage: how the version was made, as frozen and typed fields.

A training fills it, an artifact stores it as JSON, and `models.version.description` reads it back.
The fields of each part are in alphabetical order, as in an artifact and in a record. A field that
is missing from an artifact has its default; a field at its default is not written.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

MOST_VECTORS = 10**12  # the most vectors that a lineage may claim to have learned
UNUSUAL = 0.05  # a vector is unusual to a version up to this p-value
WHOLE = 2**53  # every JSON reader represents whole numbers up to this exactly

Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
Weight = Annotated[float, Meta(ge=-1e-6, le=1.0 + 1e-6)]
Count = Annotated[int, Meta(ge=0, le=MOST_VECTORS)]
Number = Annotated[int, Meta(ge=1, le=10**9)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A part of a lineage; unknown fields and wrong types are errors."""

    def to_dict(self) -> dict[str, Any]:
        """Return the part as JSON-able values, without fields at their default."""
        return msgspec.to_builtins(self)


class Alarms(Part, frozen=True, kw_only=True):
    """The share of vectors on which the candidate alarms, and the champion's, if there is one."""

    candidate: Rate
    champion: Rate | None = None


class ComparedAlarms(Part, frozen=True, kw_only=True):
    """The share of vectors on which the candidate alarms, and the champion's share."""

    candidate: Rate
    champion: Rate

    @property
    def more(self) -> float:
        """The candidate's share minus the champion's."""
        return self.candidate - self.champion


class Figures(Part, frozen=True, kw_only=True):
    """How well a version finds synthetic anomalies: see `models.decisions.evidence`."""

    apart: Rate
    auroc: Rate
    found: Rate


class Synthetic(Part, frozen=True, kw_only=True):
    """The figures of candidate and champion."""

    candidate: Figures
    champion: Figures
    n: Count


class BesideAnchor(Part, frozen=True, kw_only=True):
    """The share of the anchor's normals on which the anchor alarms, and the candidate's share."""

    anchor: Rate
    candidate: Rate


class Walked(Part, frozen=True, kw_only=True):
    """The share of `n` new normals on which the anchor alarms, and the champion's share.

    `unexplained` is described in `models.decisions.evidence`.
    """

    anchor: Rate
    champion: Rate
    n: Count
    unexplained: Rate


class Anchored(Part, frozen=True, kw_only=True):
    """The figures of candidate and anchor, and the alarm rates that reveal drift in small steps."""

    anchor: Figures
    candidate: Figures
    n: Count
    old: BesideAnchor | None = None
    walked: Walked | None = None


class OwnAlarms(Part, frozen=True, kw_only=True):
    """The share of the vectors labelled normal on which a version alarms."""

    alarms: Rate


class Labelled(Part, frozen=True, kw_only=True):
    """How the versions judge labelled vectors."""

    anchor: OwnAlarms | None = None
    anomalies: Count
    candidate: OwnAlarms | None = None
    champion: OwnAlarms | None = None
    kept: Count
    known: Count
    normals: Count


class Vouched(Part, frozen=True, kw_only=True):
    """How many of an experience's rows labelled normal still alarm: `still` of `n`."""

    n: Count
    still: Count


class Evidence(Part, frozen=True, kw_only=True):
    """The evidence on which the gate decided."""

    anchor: Anchored | None = None
    labelled: Labelled | None = None
    n_new: Count
    n_old: Count | None = None
    new: Alarms
    old: ComparedAlarms | None = None
    synthetic: Synthetic | None = None
    unlearned: Rate | None = None
    vouched: Vouched | None = None


# Stands in a version's lineage until the evidence is measured on that version.
NO_EVIDENCE = Evidence(n_new=0, new=Alarms(candidate=0.0))


class Typical(Part, frozen=True, kw_only=True):
    """A feature by which a typical vector stands out, and its value there."""

    feature: str
    value: float


class LearningCurve(Part, frozen=True, kw_only=True):
    """The loss after n vectors, in nats a vector: `floor + scale * n ** -exponent`."""

    exponent: float
    floor: float
    scale: float

    def gain(self, n: float, more: float) -> float:
        """Return the fall of the loss from n to n + `more` vectors."""
        return float(self.scale * (n**-self.exponent - (n + more) ** -self.exponent))


class KnownRegime(Part, frozen=True, kw_only=True):
    """What a lineage says of one regime.

    `size` vectors of the regime were learned; `seen` is the latest experience that had any.
    `typical` are the features by which its typical vector stands out. `replayed` vectors of it were
    drawn; `alarms` are the alarm rates on them, and `score_change` is the change of their mean
    score. A new regime has none of these three. `novel` is the share of the regime that was new
    when it came: see `models.survey.novelty`.
    """

    alarms: ComparedAlarms | None = None
    curve: LearningCurve | None
    novel: Rate | None = None
    number: Number
    replayed: Count | None = None
    score_change: float | None = None
    seen: Number
    size: Count
    typical: tuple[Typical, ...]

    @property
    def forgetting(self) -> float | None:
        """The rise of the alarm rate on its replayed vectors; None if the regime is new."""
        return None if self.alarms is None else self.alarms.more


class Ask(Part, frozen=True, kw_only=True):
    """How many more vectors of a regime to send, and the expected gain in nats."""

    gain: float
    regime: Number
    vectors: Count


class Advice(Part, frozen=True, kw_only=True):
    """How to spend a budget of new vectors."""

    budget: Count
    send: tuple[Ask, ...]
    too_few_to_tell: tuple[Number, ...]


class Training(Part, frozen=True, kw_only=True):
    """How the network was trained; for kind `mahalanobis`, its number of regimes."""

    batch_size: Count | None = None
    learning_rate: float | None = None
    loss: tuple[float, ...] | None = None
    networks: Count | None = None
    regimes: Count | None = None
    steps: Count


RANKED, HELD_OUT = 1, 2  # see `FalseIncidents`


class FalseIncidents(Part, frozen=True, kw_only=True):
    """How often each rule of `models.parts.incident_calibration` opens on `rows` normals in order.

    A row alarms if its p-value is at most `alpha`. `peaks` are the largest severity of each run of
    alarming rows, descending. The `format` says which rows were judged: RANKED are training rows,
    judged by their ranks; HELD_OUT are rows that no network had learned.
    """

    alpha: Annotated[float, Meta(gt=0, lt=1)]
    format: Annotated[int, Meta(ge=1)] = RANKED
    openings: Annotated[tuple[Count, ...], Meta(max_length=100)]
    peaks: Annotated[tuple[float, ...], Meta(max_length=1000)]
    rows: Count


class Note(Part, frozen=True, kw_only=True):
    """A remark for people about the data that a version learned: see `models.survey.notes`."""

    features: tuple[str, ...]
    kind: str
    sentence: str


class Lineage(Part, frozen=True, kw_only=True):
    """How a version was made. Versions of the first releases know no regimes.

    `parent` is the sha256 of the version on top of which this one was learned. `w_prev` and `w_new`
    are the shares of replayed and new vectors, `n_prev` and `n_new` their counts. `learned` counts
    the vectors of all experiences. `bytes_kept` is the size of the real data that the version
    keeps. `probes` are the mixing weights that were tried, each with its losses. `independent` is
    how many independent rows the calibration is worth; None if not fewer than it has scores.
    """

    advice: Advice | None = None
    bytes_kept: Annotated[int, Meta(ge=0, le=WHOLE)]
    evidence: Evidence
    experiences: Number
    incidents: FalseIncidents | None = None
    independent: Annotated[int, Meta(ge=1, le=MOST_VECTORS)] | None = None
    last_regime: Annotated[int, Meta(ge=0, le=10**9)] = 0
    learned: Annotated[int, Meta(ge=1, le=MOST_VECTORS)]
    n_new: Annotated[int, Meta(ge=1, le=MOST_VECTORS)]
    n_prev: Count
    notes: tuple[Note, ...] = ()
    parent: Digest | None
    probes: tuple[dict[str, float], ...] = ()
    regimes: tuple[KnownRegime, ...] = ()
    seed: Annotated[int, Meta(ge=0, lt=2**32)]
    strategy: str
    training: Training
    w_new: Weight
    w_prev: Weight
