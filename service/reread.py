"""Content of files that may be replaced while a process runs, such as a Secret of Kubernetes."""

from collections.abc import Callable
from typing import Generic, TypeVar

from service import log
from service.settings import BadSettings

_log = log.get(__name__)

T = TypeVar("T")


class Reread(Generic[T]):
    """The result of `read`, which reads files at the start and at each `refresh`.

    `read` raises BadSettings if the files cannot be used. At the start that error is raised.
    At a `refresh` the last good value stays, and the log says once why. The log calls the content
    by `name`.
    """

    def __init__(self, name: str, read: Callable[[], T]) -> None:
        self.value = read()
        self._name, self._read = name, read
        self._last_error: str | None = None

    def refresh(self) -> bool:
        """Read the files again. Return whether the value has changed."""
        try:
            value = self._read()
        except BadSettings as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                _log.warning(
                    f"{self._name} not read again; the old one stays in use", why=str(error)
                )
            return False
        self._last_error = None
        if value == self.value:
            return False
        self.value = value
        _log.info(f"{self._name} read again")
        return True
