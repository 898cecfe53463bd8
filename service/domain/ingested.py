"""What became of a normal batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.json_value import JsonObject


@dataclass(frozen=True, slots=True)
class Ingested:
    """The answer to one normal batch; `duplicate` is not 0 where an earlier answer is repeated.

    `triage` is not empty where a champion judged the batch: the shares of `known`, `novel` and
    `suspicious` rows, and how many were `thinned` out. `why` says why rows were held back.
    """

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int
    triage: Mapping[str, float] = field(default_factory=dict)
    why: str | None = None

    def to_dict(self) -> JsonObject:
        """Return it as an answer has it."""
        found: JsonObject = {
            "batch_id": self.batch_id,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "duplicate": self.duplicate,
            "buffered": self.buffered,
        }
        if self.why:
            found["why"] = self.why
        return found | dict(self.triage)
