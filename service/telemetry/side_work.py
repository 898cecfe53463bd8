"""Work beside scoring. If it fails, scoring goes on.

A failure is counted. It is logged once, and so is the recovery.
"""

import contextlib
from collections.abc import Callable, Generator

from service import log

_log = log.get(__name__)


class SideWork:
    """Tolerates failures of work beside scoring. `count` is called with the part that failed."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._failing: set[str] = set()

    @contextlib.contextmanager
    def part(self, name: str) -> Generator[None, None, None]:
        """Context manager: an error inside it is counted and logged, never raised."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self._count(name)
            if name not in self._failing:
                self._failing.add(name)
                _log.error(
                    "work beside scoring fails; scoring goes on",
                    part=name, why=f"{type(error).__name__}: {error}",
                )  # fmt: skip
        else:
            if name in self._failing:
                self._failing.discard(name)
                _log.info("work beside scoring works again", part=name)
