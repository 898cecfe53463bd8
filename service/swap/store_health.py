"""Whether the store answers, whether it may be used, and when a worker last reported."""

import time

from service import log
from service.addresses import shown
from service.problems import SILENT, StoreUnavailable
from service.settings import Settings
from service.store.connection import Connection, WeakStore, cause, check_durability
from service.store.due_index import Work

_log = log.get(__name__)

_CHECK_SECONDS = 30.0  # between two looks at the settings of a store, which can change as it runs
WORKER_SECONDS = 10.0  # a worker reports every two seconds


class StoreHealth:
    """What one process knows about its store. `weak` says why it may not be used, else None."""

    def __init__(self, settings: Settings) -> None:
        self.redis_up = False
        self.weak: str | None = None
        self.worker_heartbeat: float | None = None
        self.work: Work | None = None
        self._settings = settings
        self._address = shown(settings.store_url() or "")
        self._next_check = 0.0  # monotonic
        self._allowed: tuple[str, ...] = ()  # weaknesses that were logged last
        self._deaf = False
        self._why_away: str | None = None  # the reason that was logged last

    @property
    def lacks_worker(self) -> bool:
        """Whether the store answers and no worker has reported lately."""
        heard = self.worker_heartbeat
        return self.redis_up and (heard is None or time.time() - heard >= WORKER_SECONDS)

    @property
    def refusal(self) -> str | None:
        """Why nothing may be written to the store, None if writing is allowed."""
        return f"the store is refused: {self.weak}" if self.weak else None

    def writable(self) -> None:
        """Raise StoreUnavailable while the store could lose acknowledged writes."""
        if self.refusal:
            raise StoreUnavailable(self.refusal[0].upper() + self.refusal[1:])

    async def check(self, redis: Connection) -> None:
        """Raise WeakStore if the store could lose acknowledged writes, or StoreUnavailable."""
        if time.monotonic() < self._next_check:
            return
        try:
            weak = await check_durability(redis, allow_weak=self._settings.allow_weak_store)
        except WeakStore as error:
            if self.weak is None:
                _log.error("store refused", why=str(error))
            self.weak = str(error)
            raise
        if weak and weak != self._allowed:
            _log.warning("a weak store is allowed", why="; ".join(weak))
        if self.weak is not None:
            _log.info("store no longer refused")
        self._next_check = time.monotonic() + _CHECK_SECONDS
        self._allowed, self.weak = weak, None

    def away(self, why: str) -> None:
        """Note that the store does not answer."""
        if self.redis_up or self._why_away is None:
            _log.warning("store away", store=self._address, why=why)
        self._why_away = why
        # Another server may come back.
        self.redis_up = self._deaf = False
        self._next_check = 0.0

    def deaf(self, error: StoreUnavailable) -> None:
        """Log once that the store, which answers, refuses this process its notifications."""
        if self.redis_up and error.detail != SILENT and not self._deaf:
            self._deaf = True
            why = cause(error)
            _log.warning("no notifications, so changes are found by polling", why=why)

    def note_answer(self) -> bool:
        """Note that the store answers. Return True if it did not answer before."""
        returned = not self.redis_up
        if returned:
            _log.info("store back")
            self._why_away = None
        self.redis_up = True
        return returned
