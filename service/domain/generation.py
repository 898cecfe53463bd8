"""One move of the champion pointer."""

from typing import Literal

from msgspec import Struct, field


class Generation(Struct, frozen=True):
    """One move of the champion, `before` -> `version` (null for none): when, by whom and why."""

    generation: int
    version: int | None
    before: int | None = field(name="from")
    action: Literal["promote", "rollback"]
    at: str
    who: str
    why: str
