"""Whether the store answers, and when a worker last reported."""

import time

from service import log
from service.addresses import shown
from service.problems import SILENT, StoreUnavailable
from service.settings import Settings
from service.store.connection import cause
from service.store.due_index import Work
from service.store.durability import Durability

_log = log.get(__name__)

WORKER_SECONDS = 10.0  # a worker reports every two seconds


class StoreHealth(Durability):
    """What one API process knows about its store."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(allow_weak=settings.allow_weak_store)
        self.redis_up = False
        self.worker_heartbeat: float | None = None
        self.work: Work | None = None
        self._address = shown(settings.store_url() or "")
        self._logged_no_notifications = False
        self._why_away: str | None = None  # the reason that was logged last

    @property
    def lacks_worker(self) -> bool:
        """Whether the store answers and no worker has reported lately."""
        heard = self.worker_heartbeat
        return self.redis_up and (heard is None or time.time() - heard >= WORKER_SECONDS)

    @property
    def no_worker(self) -> str | None:
        """A sentence if no worker reports. None if one does, or if the store does not answer."""
        if not self.lacks_worker:
            return None
        heard = self.worker_heartbeat
        ago = "" if heard is None else f" for {time.time() - heard:.0f} s"
        return f"no worker has reported{ago}"

    def away(self, why: str) -> None:
        """Note that the store does not answer."""
        if self.redis_up or self._why_away is None:
            _log.warning("store away", store=self._address, why=why)
        self._why_away = why
        self.redis_up = self._logged_no_notifications = False
        self.check_at_once()

    def note_no_notifications(self, error: StoreUnavailable) -> None:
        """Log once that the store, which answers, refuses this process its notifications."""
        logged = self._logged_no_notifications
        if self.redis_up and error.detail != SILENT and not logged:
            self._logged_no_notifications = True
            why = cause(error)
            _log.warning("no notifications, so changes are found by polling", why=why)

    def note_answer(self) -> bool:
        """Note that the store answers. Return True if it did not answer before."""
        returned = not self.redis_up
        if self._why_away is not None:
            _log.info("store back")
            self._why_away = None
        self.redis_up = True
        return returned
