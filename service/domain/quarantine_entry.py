"""What waits in quarantine for a person."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

Decision = Literal["release", "discard"]


class QuarantineEntry(Struct, frozen=True):
    """What waits for a person: an experience, or `rows` of a normal batch.

    `version` is the one that was trained of it, or that held the rows back. `decision` is not null
    while one is carried out. `batch_id` and `sender` are of rows.
    """

    id: str
    kind: Literal["experience", "rows"]
    vectors: int
    reason: str
    version: int | None
    parked_at: str
    decision: Decision | None
    batch_id: str | UnsetType = UNSET
    sender: str | UnsetType = UNSET
