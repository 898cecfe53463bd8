"""Keeps the embedded store running, and stops it if its files are deleted."""

import time

from service import log
from service.processes.child import Restarts
from service.processes.data_directory import StoreFailed
from service.processes.embedded_store import EmbeddedStore

_log = log.get(__name__)

_LOOK_SECONDS = 0.5  # between two checks of the store's files


class StoreKeeper:
    """Restarts `store` when it has ended. Meanwhile other processes wait or serve without it."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.store = store
        self._restarts = Restarts()
        self._down = False
        self._next_look = 0.0
        self._gone: str | None = None  # what was missing at the last check of the files

    def tick(self) -> None:
        """Check the store once."""
        try:
            if self.store.child is None:
                if self._restarts.due():
                    self._restarts.started()
                    self.store.launch()
                return
            if self._down or self.store.child.poll() is not None:
                self._down = not self.store.ready()
                if not self._down:
                    _log.info("store restarted", pid=self.store.child.pid)
            # Also while a store starts: without its directory it would never seem ready.
            self._check_files()
        except StoreFailed as error:
            self._down = True
            self.store.child = None
            pause = self._restarts.ended()
            _log.warning("store ended", restart_in=pause, why=str(error))

    def _check_files(self) -> None:
        """Stop the store if its files were deleted, because its writes would be lost."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        why_lost = self.store.directory.lost()
        # A rewrite moves files, so a single check may miss one.
        if why_lost is not None and why_lost == self._gone:
            _log.error(
                "the data directory was deleted or replaced; the store is stopped, scoring goes "
                "on from memory. Put the directory back, or start `anamnesis up` again",
                directory=str(self.store.directory.path), why=why_lost,
            )  # fmt: skip
            self.store.abandon()
            raise StoreFailed(why_lost)
        self._gone = why_lost
