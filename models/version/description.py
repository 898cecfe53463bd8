"""What an artifact says of itself, typed: config, network's shape, lineage.

An artifact may come from anywhere. Whatever scoring, status, metrics and the next training read
of its description is checked here, once; `models.version.tensor_specs` does that for its tensors.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from models.config import Config
from models.errors import ArtifactError, ConfigError
from models.parts.network import Shape

MOST_VECTORS = 10**12  # that a lineage may claim to have learned
_WHOLE = 2**53  # whole numbers that every reader of JSON takes as they are
_DEEPEST = 32  # levels of a description: a lineage has 6

Rate = Annotated[float, Meta(ge=0.0, le=1.0)]
Weight = Annotated[float, Meta(ge=-1e-6, le=1.0 + 1e-6)]
Count = Annotated[int, Meta(ge=0, le=MOST_VECTORS)]
Number = Annotated[int, Meta(ge=1, le=10**9)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class _Said(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a lineage: every field is known, and has its type."""


class Alarms(_Said, frozen=True):
    """Shares of the same vectors that two versions alarm on; the first has no champion beside."""

    candidate: Rate
    champion: Rate | UnsetType = UNSET


class Both(_Said, frozen=True):
    """Shares of the same vectors that champion and candidate alarm on."""

    candidate: Rate
    champion: Rate


class Figures(_Said, frozen=True):
    """How a version tells synthetic anomalies: see `models.decisions.evidence`."""

    auroc: Rate
    apart: Rate
    found: Rate


class Synthetic(_Said, frozen=True):
    """The figures of candidate and champion."""

    n: Count
    candidate: Figures
    champion: Figures


class Anchored(_Said, frozen=True):
    """The figures of candidate and anchor."""

    n: Count
    candidate: Figures
    anchor: Figures


class OwnAlarms(_Said, frozen=True):
    """The share of the vectors labelled normal that a version alarms on."""

    alarms: Rate


class Labelled(_Said, frozen=True):
    """How the versions judge what people labelled."""

    anomalies: Count
    normals: Count
    known: Count
    kept: Count
    candidate: OwnAlarms | UnsetType = UNSET
    champion: OwnAlarms | UnsetType = UNSET
    anchor: OwnAlarms | UnsetType = UNSET


class Vouched(_Said, frozen=True):
    """Of the rows of an experience that people labelled normal, how many still alarm."""

    n: Count
    still: Count


class Evidence(_Said, frozen=True):
    """What the gate decided on."""

    n_new: Count
    new: Alarms
    n_old: Count | UnsetType = UNSET
    old: Both | UnsetType = UNSET
    unlearned: Rate | UnsetType = UNSET
    synthetic: Synthetic | UnsetType = UNSET
    labelled: Labelled | UnsetType = UNSET
    anchor: Anchored | UnsetType = UNSET
    vouched: Vouched | UnsetType = UNSET


class Typical(_Said, frozen=True):
    """A feature by which a typical vector stands out, and its value there."""

    feature: str
    value: float


class LearningCurve(_Said, frozen=True):
    """The parameters of `models.survey.learning_curves.Curve`."""

    floor: float
    scale: float
    exponent: float


class KnownRegime(_Said, frozen=True):
    """What a lineage says of one regime."""

    number: Number
    size: Count
    seen: Number
    typical: list[Typical]
    curve: LearningCurve | None
    replayed: Count | UnsetType = UNSET
    alarms: Both | UnsetType = UNSET
    score_change: float | UnsetType = UNSET


class Ask(_Said, frozen=True):
    """How many more vectors of a regime to send, and what they would gain in nats."""

    regime: Number
    vectors: Count
    gain: float


class Advice(_Said, frozen=True):
    """How a budget of vectors is best spent."""

    budget: Count
    send: list[Ask]
    too_few_to_tell: list[Number]


class Training(_Said, frozen=True):
    """How the network was trained; kind `mahalanobis` counts its regimes instead."""

    steps: Count
    batch_size: Count | UnsetType = UNSET
    learning_rate: float | UnsetType = UNSET
    networks: Count | UnsetType = UNSET
    loss: list[float] | UnsetType = UNSET
    regimes: Count | UnsetType = UNSET


class FalseIncidents(_Said, frozen=True):
    """How often each rule opens on normals: `models.parts.incident_rule.Curve`."""

    rows: Count
    openings: Annotated[list[Count], Meta(max_length=100)]
    peaks: Annotated[list[float], Meta(max_length=1000)]
    alpha: Annotated[float, Meta(gt=0, lt=1)]


class Note(_Said, frozen=True):
    """What a person should know of the data that a version learned: see `models.notes`."""

    kind: str
    features: list[str]
    sentence: str


class Lineage(_Said, frozen=True):
    """Where a version comes from. Versions of the first releases know no regimes."""

    parent: Digest | None
    strategy: str
    w_prev: Weight
    w_new: Weight
    n_prev: Count
    n_new: Annotated[int, Meta(ge=1, le=MOST_VECTORS)]
    learned: Annotated[int, Meta(ge=1, le=MOST_VECTORS)]
    experiences: Number
    seed: Annotated[int, Meta(ge=0, lt=2**32)]
    training: Training
    bytes_kept: Annotated[int, Meta(ge=0, le=_WHOLE)]
    evidence: Evidence
    regimes: list[KnownRegime] | UnsetType = UNSET
    advice: Advice | UnsetType = UNSET
    last_regime: Annotated[int, Meta(ge=0, le=10**9)] | UnsetType = UNSET
    probes: list[dict[str, float]] | UnsetType = UNSET
    incidents: FalseIncidents | UnsetType = UNSET
    notes: list[Note] | UnsetType = UNSET


class Description(NamedTuple):
    """What an artifact says of itself: the config, the network's shape and the lineage."""

    config: Config
    shape: Shape
    lineage: Lineage

    @property
    def regimes(self) -> int:
        """How many regimes the lineage knows."""
        return 0 if self.lineage.regimes is UNSET else len(self.lineage.regimes)

    @property
    def tied(self) -> bool:
        """Whether the version is of kind `mahalanobis`."""
        return self.shape.likelihood == "identity"


def described(about: Mapping[str, Any]) -> Description:
    """Return the description of an artifact, typed; ArtifactError where it is anything else."""
    _plain(about)
    try:
        config = msgspec.convert(about.get("config"), Config)
        shape = msgspec.convert(about.get("shape"), Shape)
        lineage = msgspec.convert(about.get("lineage"), Lineage)
    except (msgspec.ValidationError, ConfigError) as error:
        raise ArtifactError(f"artifact: its description: {error}") from None
    found = Description(config, shape, lineage)
    for what, right in _consistent(found):
        if not right:
            raise ArtifactError(f"artifact: its description: {what}")
    return found


def _plain(value: Any, depth: int = 0) -> None:
    """Raise ArtifactError for what JSON can carry and its readers cannot."""
    if depth > _DEEPEST:
        raise ArtifactError("artifact: its description is nested too deeply")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ArtifactError("artifact: its description has half a character") from None
    elif isinstance(value, int) and abs(value) > _WHOLE:
        raise ArtifactError("artifact: its description has a whole number beyond 2**53")
    elif isinstance(value, Mapping):
        for name, one in value.items():
            _plain(name, depth + 1)
            _plain(one, depth + 1)
    elif isinstance(value, list):
        for one in value:
            _plain(one, depth + 1)


def _consistent(about: Description) -> Iterator[tuple[str, bool]]:
    """Yield what the parts must say of each other, and whether they do."""
    config, shape, lineage = about
    yield "shape.dimension: 1 to 65536", 1 <= shape.dimension <= 65_536
    yield "shape.noise_floor: -30 to 30", -30.0 <= shape.noise_floor <= 30.0
    yield "shape.likelihood", shape.likelihood in {"gaussian", "bernoulli", "identity"}
    yield "config.kind is not the network's", (config.kind == "mahalanobis") == about.tied
    if about.tied:
        yield "shape.latent", shape.latent == shape.dimension
        yield "shape.hidden", shape.hidden == ()
    else:
        yield "shape.latent: 1 to 1024", 1 <= shape.latent <= 1024
        yield "shape.hidden: 1 to 8 layers", 1 <= len(shape.hidden) <= 8
        # A network that grows may pass the 8,192 units that a config may ask for.
        yield "shape.hidden: 1 to 16384 units", all(1 <= one <= 16_384 for one in shape.hidden)
    yield "config.dimension", config.width in (None, shape.dimension)
    yield "lineage.learned: fewer than n_new", lineage.learned >= lineage.n_new
    known = [] if lineage.regimes is UNSET else lineage.regimes
    numbers = [one.number for one in known]
    yield "lineage.regimes: numbers rise", _distinct(numbers)
    yield "lineage.regimes: sizes sum to 0", not known or sum(one.size for one in known) > 0
    last = 0 if lineage.last_regime is UNSET else lineage.last_regime
    yield "lineage.last_regime: a regime has a larger number", max([0, *numbers]) <= last


def _distinct(numbers: list[int]) -> bool:
    """Return whether the numbers rise, none of them twice."""
    return numbers == sorted(set(numbers))
