"""Whether a worker reported lately: without one nothing is learned, and drift is not updated."""

import time

from service.api.context import Parts


def no_worker(app: Parts) -> str | None:
    """Return in words that no worker is there; None where one is, or the store does not tell."""
    health = app.watcher.health
    if not health.lacks_worker:
        return None
    beat = health.worker_heartbeat
    ago = "" if beat is None else f" for {time.time() - beat:.0f} s"
    return f"no worker heard of{ago}"
