"""Work beside scoring: it may fail, and scoring goes on.

What fails is counted and said once, and said again when it works.
"""

import contextlib
from collections.abc import Callable, Generator

from service import log

_log = log.get(__name__)


class SideWork:
    """Tolerates failures of the work beside scoring; `count` is told the part that failed."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._failing: set[str] = set()

    @contextlib.contextmanager
    def part(self, name: str) -> Generator[None, None, None]:
        """Run what is inside; an error in it is counted and logged, never raised."""
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
