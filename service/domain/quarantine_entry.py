"""One entry of the quarantine."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

Decision = Literal["release", "discard"]


class QuarantineEntry(Struct, frozen=True):
    """An entry that waits for a person: an experience, or rows of a normal batch.

    `version` was trained on the experience, or is the champion that judged the rows anomalous.
    `decision` is not null while a decision is being carried out. Only rows have a `batch_id` and a
    `sender`.
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
