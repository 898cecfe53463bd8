"""The context that a detector with `context: auto` got at its first training, and why."""

import msgspec
from msgspec import Struct

from models.context import Context

FORMAT = 1


class ChosenContext(Struct, frozen=True, kw_only=True):
    """The chosen context, or None for no context, and the reason in words. Stored as JSON."""

    context: Context | None
    why: str
    format: int = FORMAT

    def written(self) -> bytes:
        """Return the choice as JSON."""
        return msgspec.json.encode(self)


read_choice = msgspec.json.Decoder(ChosenContext).decode
