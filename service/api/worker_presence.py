"""Whether a worker reported lately. Without one nothing is learned and drift is not updated."""

import time

from service.api.context import Parts


def no_worker(app: Parts) -> str | None:
    """Return a sentence if no worker reports. None if one does, or if the store does not answer."""
    health = app.watcher.health
    if not health.lacks_worker:
        return None
    beat = health.worker_heartbeat
    ago = "" if beat is None else f" for {time.time() - beat:.0f} s"
    return f"no worker has reported{ago}"
