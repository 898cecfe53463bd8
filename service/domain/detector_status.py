"""The status of a detector in an answer."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from models.context import Context
from models.drift.finding import Presence
from models.parts.calibration import Support
from models.parts.lineage import Advice, Note, Typical
from service.domain.detector import LastRetraining, Retraining, Retrains
from service.domain.drift_report import Drift, Query
from service.domain.incident import IncidentRule
from service.json_value import JsonObject

# The result of `DetectorConfig.to_dict`. Its OpenAPI schema comes from pydantic.
Config = Annotated[
    JsonObject, Meta(extra_json_schema={"$ref": "#/components/schemas/DetectorConfig"})
]


class RegimeStatus(Struct, frozen=True):
    """One regime that the champion knows.

    `learned` is its share of all learned vectors. `live` is its share of live rows, None while
    there are too few. `forgetting` is by how much the share of its replayed vectors that alarm has
    grown, None if the regime is new.
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
    """How many open incidents page people, and how many are open in all."""

    open: int
    unfinished: int


class MuteStatus(Struct, frozen=True):
    """Until when (RFC 3339) a detector pages nobody, why, and who muted it."""

    until: str | None
    why: str
    who: str


class ContextStatus(Struct, frozen=True):
    """The context that `context: auto` chose at the first training (null for none), and why."""

    chosen: Context | None
    why: str


class RecentStatus(Struct, frozen=True):
    """When the champion began to serve (RFC 3339), and rows and alarms of the last hour."""

    champion_since: str | None
    rows: int
    alarms: int


class DetectorStatus(Struct, frozen=True):
    """The status of a detector: config, champion, buffer, learning and incidents.

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
    recent: RecentStatus | UnsetType = UNSET


class BrokenStatus(Struct, frozen=True):
    """A detector whose status cannot be shown, and why."""

    name: str
    generation: int
    broken: str
