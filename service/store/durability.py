"""Checks again and again whether the store keeps what it acknowledges."""

import time

from service import log
from service.problems import StoreUnavailable
from service.store.connection import Connection, WeakStore, check_durability

_log = log.get(__name__)

_CHECK_SECONDS = 30.0  # between two looks at the settings of a store, which can change as it runs


class Durability:
    """What one process knows about the store's durability.

    `weak` says why the store may not be used, None if it may.
    """

    def __init__(self, *, allow_weak: bool) -> None:
        self.weak: str | None = None
        self._allow_weak = allow_weak
        self._next_check = 0.0  # monotonic
        self._allowed: tuple[str, ...] = ()  # weaknesses that were logged last

    @property
    def refusal(self) -> str | None:
        """Why nothing may be written to the store, None if writing is allowed."""
        return f"the store is refused: {self.weak}" if self.weak else None

    def check_writable(self) -> None:
        """Raise StoreUnavailable while the store could lose acknowledged writes."""
        if self.refusal:
            raise StoreUnavailable(self.refusal[0].upper() + self.refusal[1:])

    async def check(self, redis: Connection) -> None:
        """Raise WeakStore if the store could lose acknowledged writes, or StoreUnavailable."""
        if time.monotonic() < self._next_check:
            return
        try:
            weak = await check_durability(redis, allow_weak=self._allow_weak)
        except WeakStore as error:
            if self.weak is None:
                _log.error("store refused: it may lose what was acknowledged", why=str(error))
            self.weak = str(error)
            raise
        if weak and weak != self._allowed:
            _log.warning("a weak store is allowed", why="; ".join(weak))
        if self.weak is not None:
            _log.info("store no longer refused")
        self._next_check = time.monotonic() + _CHECK_SECONDS
        self._allowed, self.weak = weak, None

    def check_at_once(self) -> None:
        """Let the next check ask the store: another server may have come back."""
        self._next_check = 0.0
