"""The context that a detector with `context: auto` got at its first training, and why."""

import msgspec
from msgspec import Struct

from models.context import Context

FORMAT = 1


class ChosenContext(Struct, frozen=True, kw_only=True):
    """What was chosen, None for no context, and the reason in words. Stored as JSON."""

    context: Context | None
    why: str
    format: int = FORMAT

    def written(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode(self)


read_choice = msgspec.json.Decoder(ChosenContext).decode
