"""What an API process is made of; routes reach everything through it."""

from dataclasses import dataclass

from fastapi import Request

from service.access import Access
from service.champions import Champions
from service.ingest import Ingest
from service.metrics import Metrics
from service.observer import Observer
from service.problems import StoreUnavailable
from service.scoring import Scoring
from service.settings import Settings
from service.state_metrics import StateMetrics
from service.stores import Stores
from service.watcher import Watcher


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one API process, wired by `service.app`."""

    settings: Settings
    access: Access
    stores: Stores
    champions: Champions
    watcher: Watcher
    scoring: Scoring
    observer: Observer
    ingest: Ingest
    metrics: Metrics
    state_metrics: StateMetrics

    def writable(self) -> None:
        """Raise StoreUnavailable while the store is one that could lose what it acknowledges."""
        if self.watcher.weak:
            raise StoreUnavailable(f"The store is refused. {self.watcher.weak}")


def parts(request: Request) -> Parts:
    """Return the parts of the process that serves `request`."""
    found: Parts = request.app.state.parts
    return found
