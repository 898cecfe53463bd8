"""Start one worker process: `python -m service.worker`."""

import asyncio
import signal
import sys

from service import crash_points, log
from service.processes.training_device import unusable_device
from service.settings import Settings
from service.store.connection import WeakStore, connect
from service.worker.worker import CALL_SECONDS, Worker

_log = log.get(__name__)


async def work(settings: Settings, url: str) -> None:
    """Run a worker with the store at `url` until SIGTERM or SIGINT. Raises WeakStore."""
    async with await connect(url, deadline=CALL_SECONDS) as redis:
        worker = Worker(settings, redis, url)
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            # Obey a supervisor's SIGTERM even if this process was started to ignore it.
            if sig == signal.SIGTERM or signal.getsignal(sig) is not signal.SIG_IGN:
                loop.add_signal_handler(sig, worker.stop)
        await worker.run()


def main() -> int:
    """Run as `python -m service.worker`. Return the exit status."""
    settings = Settings()
    log.configure(settings, "worker")
    crash_points.arm(settings.crash_point)
    url = settings.store_url()
    if url is None:
        _log.error("no store is set: set ANAMNESIS_REDIS_URL")
        return 2
    if (why := unusable_device(settings)) is not None:
        _log.error("the worker cannot train", why=why)
        return 2
    try:
        asyncio.run(work(settings, url))
    except WeakStore:  # it was logged
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
