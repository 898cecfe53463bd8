"""A worker without a trainer: it takes experiences and promotes as fast as its lease allows.

`python -m tests.faults.racer URL ARTIFACT SEED` runs until SIGTERM. Then it prints the numbers of
promotions that succeeded and of those that were refused.
"""

import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path

from service.domain.version_record import GateRecord, NewRecord
from service.problems import StoreUnavailable
from service.settings import Settings
from service.store.buffer import Buffer
from service.store.connection import connect
from service.store.leases import Leases
from service.store.lua import Fenced
from service.store.registry import Registry
from service.store.retrainings import Retrainings

LEASE_SECONDS = 0.05


async def race(url: str, artifact: bytes, seed: int) -> None:
    """Take and promote until SIGTERM. `seed` decides the lengths of the pauses."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    redis, rng = await connect(url), random.Random(seed)
    leases, buffer = Leases(redis), Buffer(redis, Settings())
    registry = Registry(redis, versions_kept=100_000)
    promoted, refused = 0, 0
    while not stop.is_set():
        with contextlib.suppress(StoreUnavailable):
            lease = await leases.acquire("pump", LEASE_SECONDS)
            if lease is None:
                await asyncio.sleep(rng.uniform(0.0, LEASE_SECONDS))  # another racer has the lease
                continue
            try:
                await Retrainings(redis).start(lease)
                experience = await buffer.take("pump")
                if experience is None:
                    continue
                # A training, sometimes longer than the lease.
                await asyncio.sleep(rng.uniform(0.0, 1.5 * LEASE_SECONDS))
                record = NewRecord(gate=GateRecord(passed=True))
                await registry.settle(lease, experience, artifact, record, seconds=0.0)
                promoted += 1
            except Fenced:
                refused += 1
            await leases.release(lease)
    await redis.aclose()
    print(promoted, refused)  # noqa: T201 - `learning` reads them


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], Path(sys.argv[2]).read_bytes(), int(sys.argv[3])))
