"""Where a version comes from: its lineage, frozen, every field known and typed.

A training fills it, an artifact carries it as JSON, and `models.version.description` reads it back.
The fields of each part stand in the order of the alphabet: as an artifact and a record have them.
A field that is missing from an artifact has its default; a field at its default is not written.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

MOST_VECTORS = 10**12  # that a lineage may claim to have learned
WHOLE = 2**53  # whole numbers that every reader of JSON takes as they are

Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
Weight = Annotated[float, Meta(ge=-1e-6, le=1.0 + 1e-6)]
Count = Annotated[int, Meta(ge=0, le=MOST_VECTORS)]
Number = Annotated[int, Meta(ge=1, le=10**9)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A part of a lineage: every field is known, and has its type."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON carries it; fields at their default are left out."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class Alarms(Part, frozen=True, kw_only=True):
    """Shares of the same vectors that two versions alarm on; the first has no champion beside."""

    candidate: Rate
    champion: Rate | None = None


class Both(Part, frozen=True, kw_only=True):
    """Shares of the same vectors that champion and candidate alarm on."""

    candidate: Rate
    champion: Rate

    @property
    def more(self) -> float:
        """How much larger the candidate's share is."""
        return self.candidate - self.champion


class Figures(Part, frozen=True, kw_only=True):
    """How a version tells synthetic anomalies: see `models.decisions.evidence`."""

    apart: Rate
    auroc: Rate
    found: Rate


class Synthetic(Part, frozen=True, kw_only=True):
    """The figures of candidate and champion."""

    candidate: Figures
    champion: Figures
    n: Count


class BesideAnchor(Part, frozen=True, kw_only=True):
    """Shares of normals drawn from the anchor that anchor and candidate alarm on."""

    anchor: Rate
    candidate: Rate


class Walked(Part, frozen=True, kw_only=True):
    """Shares of `n` new normals that both versions alarm on: `models.decisions.evidence`."""

    anchor: Rate
    champion: Rate
    n: Count
    unexplained: Rate


class Anchored(Part, frozen=True, kw_only=True):
    """The figures of candidate and anchor, and the alarms that show a slow walk."""

    anchor: Figures
    candidate: Figures
    n: Count
    old: BesideAnchor | None = None
    walked: Walked | None = None


class OwnAlarms(Part, frozen=True, kw_only=True):
    """The share of the vectors labelled normal that a version alarms on."""

    alarms: Rate


class Labelled(Part, frozen=True, kw_only=True):
    """How the versions judge what people labelled."""

    anchor: OwnAlarms | None = None
    anomalies: Count
    candidate: OwnAlarms | None = None
    champion: OwnAlarms | None = None
    kept: Count
    known: Count
    normals: Count


class Vouched(Part, frozen=True, kw_only=True):
    """Of the rows of an experience that people labelled normal, how many still alarm."""

    n: Count
    still: Count


class Evidence(Part, frozen=True, kw_only=True):
    """What the gate decided on."""

    anchor: Anchored | None = None
    labelled: Labelled | None = None
    n_new: Count
    n_old: Count | None = None
    new: Alarms
    old: Both | None = None
    synthetic: Synthetic | None = None
    unlearned: Rate | None = None
    vouched: Vouched | None = None


# Of a version that is still being made: what the evidence is measured on has a lineage already.
NO_EVIDENCE = Evidence(n_new=0, new=Alarms(candidate=0.0))


class Typical(Part, frozen=True, kw_only=True):
    """A feature by which a typical vector stands out, and its value there."""

    feature: str
    value: float


class LearningCurve(Part, frozen=True, kw_only=True):
    """The parameters of `models.survey.learning_curves.Curve`."""

    exponent: float
    floor: float
    scale: float


class KnownRegime(Part, frozen=True, kw_only=True):
    """What a lineage says of one regime.

    `size` vectors of it were learned, and `seen` is the latest experience that brought any.
    `typical` are the features by which its typical vector stands out. `replayed` vectors were drawn
    of it: `alarms` on those, and by how much their mean score changed; missing from a new regime.
    `novel` is the largest share of its vectors that were rare to the version before they came.
    """

    alarms: Both | None = None
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
        """How much more of its replayed vectors alarm than did before; None if it is new."""
        return None if self.alarms is None else self.alarms.more


class Ask(Part, frozen=True, kw_only=True):
    """How many more vectors of a regime to send, and what they would gain in nats."""

    gain: float
    regime: Number
    vectors: Count


class Advice(Part, frozen=True, kw_only=True):
    """How a budget of vectors is best spent."""

    budget: Count
    send: tuple[Ask, ...]
    too_few_to_tell: tuple[Number, ...]


class Training(Part, frozen=True, kw_only=True):
    """How the network was trained; kind `mahalanobis` counts its regimes instead."""

    batch_size: Count | None = None
    learning_rate: float | None = None
    loss: tuple[float, ...] | None = None
    networks: Count | None = None
    regimes: Count | None = None
    steps: Count


class FalseIncidents(Part, frozen=True, kw_only=True):
    """How often each rule opens on normals: `models.parts.incident_rule.Curve`."""

    alpha: Annotated[float, Meta(gt=0, lt=1)]
    format: Annotated[int, Meta(ge=1)] = 1
    openings: Annotated[tuple[Count, ...], Meta(max_length=100)]
    peaks: Annotated[tuple[float, ...], Meta(max_length=1000)]
    rows: Count


class Note(Part, frozen=True, kw_only=True):
    """What a person should know of the data that a version learned: see `models.survey.notes`."""

    features: tuple[str, ...]
    kind: str
    sentence: str


class Lineage(Part, frozen=True, kw_only=True):
    """Where a version comes from. Versions of the first releases know no regimes.

    `parent` is the sha256 of the version that it was learned on top of. `w_prev` and `w_new` are
    the shares of replayed and new vectors, `n_prev` and `n_new` their counts, `learned` the vectors
    of all experiences. `bytes_kept` counts real data that it keeps. `probes` are the weights that
    were tried, each with the losses that it led to.
    """

    advice: Advice | None = None
    bytes_kept: Annotated[int, Meta(ge=0, le=WHOLE)]
    evidence: Evidence
    experiences: Number
    incidents: FalseIncidents | None = None
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
