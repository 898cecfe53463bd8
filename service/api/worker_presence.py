"""Whether a worker was heard of lately: without one nothing is learned, and drift goes stale."""

import time

from service.api.context import Parts

SECONDS = 10.0  # a worker beats every two


def no_worker(app: Parts) -> str | None:
    """Return in words that no worker is there; None where one is, or the store does not tell."""
    if not app.watcher.health.redis_up:
        return None
    beat = app.watcher.health.worker_heartbeat
    if beat is None:
        return "no worker heard of"
    age = time.time() - beat
    return f"no worker heard of for {age:.0f} s" if age >= SECONDS else None
