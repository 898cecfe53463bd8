"""The parts of an API process; routes reach everything through them."""

from dataclasses import dataclass

from fastapi import Request

from service.api.access import Access
from service.api.normal_batches import Ingest
from service.api.page.changes import Changes
from service.scoring.champions import Champions
from service.scoring.core import Scoring
from service.settings import Settings
from service.store.adapters import Stores
from service.swap.watcher import Watcher
from service.telemetry.live_reporter import LiveReporter
from service.telemetry.metrics import Metrics
from service.telemetry.store_metrics import StoreMetrics


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one API process, wired by `service.api.app`."""

    settings: Settings
    access: Access
    stores: Stores
    champions: Champions
    watcher: Watcher
    scoring: Scoring
    reporter: LiveReporter
    ingest: Ingest
    metrics: Metrics
    store_metrics: StoreMetrics
    changes: Changes

    def check_writable(self) -> None:
        """Raise StoreUnavailable while the store could lose acknowledged writes."""
        self.watcher.health.check_writable()


def parts(request: Request) -> Parts:
    """Return the parts of the process that serves `request`."""
    app_parts: Parts = request.app.state.parts
    return app_parts


def root_path(request: Request) -> str:
    """Return the path under which a proxy shows the service, without a slash at its end."""
    return parts(request).settings.root_path.rstrip("/")
