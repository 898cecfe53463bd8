"""What the status of a detector says, as an answer carries it."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from models.context import Context
from models.drift.finding import Presence
from models.parts.calibration import Support
from models.parts.lineage import Advice, Note, Typical
from service.domain.detector import LastRetraining, Retraining, Retrains
from service.domain.drift_report import Drift, Query
from service.domain.incident import IncidentRule
from service.json_value import JsonObject

# As `DetectorConfig.to_dict` writes it. OpenAPI has its schema from pydantic, which reads it.
Config = Annotated[
    JsonObject, Meta(extra_json_schema={"$ref": "#/components/schemas/DetectorConfig"})
]


class RegimeStatus(Struct, frozen=True):
    """One regime that the champion knows.

    `learned` is its share of all vectors learned, `live` that of live rows, None while those are
    too few. `forgetting` is how much more of its replayed vectors alarm than did before, None if
    it is new.
    """

    regime: int
    size: int
    learned: float
    seen: int
    live: float | None
    state: Presence
    forgetting: float | None
    score_change: float | None
    typical: tuple[Typical, ...]


class IncidentCounts(Struct, frozen=True):
    """Incidents that are open and page, and all that are open."""

    open: int
    unfinished: int


class MuteStatus(Struct, frozen=True):
    """Until when (RFC 3339) a detector pages nobody, why, and who muted it."""

    until: str | None
    why: str
    who: str


class ContextStatus(Struct, frozen=True):
    """What `context: auto` chose at the first training, null for no context, and why."""

    chosen: Context | None
    why: str


class DetectorStatus(Struct, frozen=True):
    """A detector: its config, what is served here and now, what it holds, how it learns.

    `champion`, `generation` and `threshold` are those of the process that answers.
    """

    name: str
    created_at: str
    config: Config
    config_revision: int
    dimension: int | None
    champion: int | None
    generation: int
    loaded: bool
    threshold: float | None
    calibration: Support | None
    labels: Mapping[str, int] | None
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
    regimes: tuple[RegimeStatus, ...]
    advice: Advice | None
    notes: tuple[Note, ...]
    queries: tuple[Query, ...]
    context: ContextStatus | None


class BrokenStatus(Struct, frozen=True):
    """A detector whose status cannot be shown, and why."""

    name: str
    generation: int
    broken: str
