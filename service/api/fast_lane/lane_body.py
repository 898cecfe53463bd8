"""The body of a request for the lane, as far as it has arrived."""

from service.api.body_budget import FREE_BYTES, BodyBudget

_PARTS = 256  # parts of a body before they are joined; a part costs about fifty bytes of memory


class LaneBody:
    """The parts of one body. A large body counts against the budget until it is released."""

    __slots__ = ("_budget", "_held", "_parts", "_sender", "_size")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._held = 0  # bytes that the budget holds for the sender
        self.begin("")

    def begin(self, sender: str) -> None:
        """Begin an empty body of this sender."""
        self._sender = sender
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> bool:
        """Keep a part. Return False if the budget has no room for it."""
        self._size += len(part)
        if self._size > FREE_BYTES:
            if not self._budget.try_take(self._sender, self._size - self._held):
                return False
            self._held = self._size
        self._parts.append(part)
        if len(self._parts) == _PARTS:
            self._parts = [b"".join(self._parts)]
        return True

    def take(self) -> bytes:
        """Return the complete body, and release it."""
        if self._held:
            self.release()
        return b"".join(self._parts)

    def release(self) -> None:
        """Give back the bytes that the budget holds for this body."""
        self._budget.give(self._sender, self._held)
        self._held = 0
