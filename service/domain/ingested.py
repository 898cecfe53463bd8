"""The result of sending a normal batch."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

from service.json_value import JsonObject


class Ingested(msgspec.Struct, frozen=True):
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
    triage: Mapping[str, float] = {}
    why: str | UnsetType = UNSET

    def to_dict(self) -> JsonObject:
        """Return the JSON object of the answer. The entries of `triage` are fields of their own."""
        fields: JsonObject = msgspec.to_builtins(self)
        del fields["triage"]
        return fields | dict(self.triage)
