"""The folder through which the API processes of one supervisor share their metrics."""

import contextlib
import os
import tempfile
from pathlib import Path

from service import log, metric_files
from service.processes.data_directory import open_lock, try_lock

_log = log.get(__name__)
_PREFIX = "anamnesis-metrics-"


class MetricsFolder:
    """A new folder of this supervisor in `parent`, or among the temporary files.

    `path` is None if no folder could be made. Each process then reports only its own numbers. A
    lock marks the folder as in use: a killed supervisor leaves a folder without one.
    """

    def __init__(self, parent: Path | None) -> None:
        self.path: Path | None = None
        self._lock: int | None = None
        for folder in dict.fromkeys((parent, None)):  # None: the folder of temporary files
            try:
                self._make(folder)
            except OSError as error:
                _log.warning(
                    "making a folder for metrics failed",
                    parent=str(folder or "temporary files"),
                    why=str(error),
                )
            else:
                return

    def _make(self, parent: Path | None) -> None:
        if parent is not None:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_abandoned(parent)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = _locked(path)
        self.path = path

    def ended(self, place: int) -> None:
        """Remove the gauges of the process with number `place`, which has ended."""
        if self.path is not None:
            # If this fails, the gauges are outdated until the next process starts.
            with contextlib.suppress(OSError):
                metric_files.remove(self.path, place=place, lifetime=metric_files.LIVE)

    def close(self) -> None:
        """Remove the folder with the files of the processes."""
        if self.path is not None:
            _remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(folder: Path) -> int | None:
    """Lock `folder` and return the lock, or None if another process holds it."""
    lock = open_lock(folder / "lock")
    if try_lock(lock):
        return lock
    os.close(lock)
    return None


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of supervisors that were killed."""
    for folder in parent.glob(f"{_PREFIX}*/"):
        with contextlib.suppress(OSError):
            if (lock := _locked(folder)) is not None:
                _remove(folder)
                os.close(lock)


def _remove(folder: Path) -> None:
    """Remove our files in `folder`, and the folder if it is empty then."""
    with contextlib.suppress(OSError):
        metric_files.remove(folder)
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()
