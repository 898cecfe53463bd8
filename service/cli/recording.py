"""Records the rows of a file at a pace at which each of their incidents keeps rows."""

import itertools
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote, urlencode

from service.cli.targets import Targets
from service.timestamps import EARLIEST, LATEST, rfc3339

# A service reports once a second, and a report keeps 50 rows: one of each run of alarming rows.
_RUNS = 25  # runs of alarming rows after which the next second is awaited
_SECONDS = 1.1
_BESIDE_SECONDS, _HOUR = 600.0, 3600  # _BESIDE_SECONDS: least time to show before and after rows


class Pace:
    """Waits while a service records rows, so that it keeps a row of each run of alarming rows.

    `clock` returns the time in seconds, and `sleep` waits for a number of seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._began, self._runs = clock(), 0

    def wait(self, alarms: Sequence[bool | None]) -> None:
        """Wait as long as the service needs before the next rows.

        `alarms` are the verdicts that it gave on the latest rows, in order.
        """
        now = self._clock()
        if now - self._began >= _SECONDS:
            self._began, self._runs = now, 0
        pairs = itertools.pairwise([False, *alarms])
        self._runs += sum(alarm is True and before is not True for before, alarm in pairs)
        if self._runs >= _RUNS:
            self._sleep(max(0.0, self._began + _SECONDS - now))
            self._began, self._runs = self._clock(), 0


def where_recorded(targets: Targets, page: str, times: tuple[float, float] | None) -> str:
    """Return a sentence that says where to see what was recorded, after a few seconds.

    `page` is the address of the service. `times` are the first and the last time of the rows, None
    if they have none.
    """
    if len(targets.all) == 1:
        page += f"/detectors/{quote(targets.first.name)}"
        if times is not None:
            first, last = times
            beside = max(_BESIDE_SECONDS, (last - first) / 50)
            start = max((first - beside) // _HOUR * _HOUR, EARLIEST)
            query = {"from": rfc3339(start), "to": rfc3339(min(last + beside, LATEST))}
            page += f"?{urlencode(query, safe=':')}"
    return f"recorded: a few seconds from now, {page} shows the incidents"
