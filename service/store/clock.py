"""The store's clock, which all processes share."""

import time

from redis.asyncio import Redis

from service import log
from service.store.connection import store_time

_log = log.get(__name__)

_COMPARED_SECONDS = 10.0  # between two comparisons with the store's clock
_WRONG_SECONDS = 60.0  # a larger difference is logged


class StoreClock:
    """The store's time as this process knows it: its own clock plus the difference to the store's.

    So a process whose clock is wrong does not take rows of this moment for old ones.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._difference = 0.0  # seconds to add to this machine's clock
        self._compared_at: float | None = None  # monotonic
        self._wrong = False

    async def now(self) -> float:
        """Return the store's time in seconds since 1970. Raises StoreUnavailable."""
        at = self._compared_at
        if at is None or time.monotonic() - at >= _COMPARED_SECONDS:
            self._note(await store_time(self._redis) - time.time())
            self._compared_at = time.monotonic()
        return self.last_known()

    def last_known(self) -> float:
        """Return the store's time by the latest comparison; before the first, the machine's."""
        return time.time() + self._difference

    def _note(self, difference: float) -> None:
        self._difference = difference
        wrong = abs(difference) > _WRONG_SECONDS
        if wrong and not self._wrong:
            _log.warning(
                "this machine's clock differs from the store's; set one of them right",
                seconds_ahead=round(-difference),
            )
        self._wrong = wrong
