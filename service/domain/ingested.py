"""The result of sending a normal batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.json_value import JsonObject


@dataclass(frozen=True, slots=True)
class Ingested:
    """The answer to one normal batch; if it repeats an earlier answer, `duplicate` is not 0.

    If a champion judged the batch for triage, `triage` holds the shares of `known`, `novel` and
    `suspicious` rows and the number of rows that were `thinned` out. `why` says why rows went to
    quarantine.
    """

    batch_id: str
    accepted: int
    quarantined: int
    duplicate: int
    buffered: int
    triage: Mapping[str, float] = field(default_factory=dict)
    why: str | None = None

    def to_dict(self) -> JsonObject:
        """Return the JSON object of the answer."""
        fields: JsonObject = {
            "batch_id": self.batch_id,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "duplicate": self.duplicate,
            "buffered": self.buffered,
        }
        if self.why:
            fields["why"] = self.why
        return fields | dict(self.triage)
