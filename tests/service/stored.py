"""Helpers for the tests of the store adapters."""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from service.domain.detector import Detector
from service.domain.detector_config import parse
from service.domain.experience import Experience
from service.domain.version_record import GateRecord, NewRecord
from service.settings import Settings
from service.store.adapters import Stores
from service.store.audit_trail import Audit
from service.store.buffer import Buffer
from service.store.detectors import Detectors
from service.store.erasure import Erasure
from service.store.leases import Lease, Leases
from service.store.quarantine import Quarantine
from service.store.registry import Registry
from service.store.retrainings import Retrainings
from service.store.revocations import Revocations
from service.worker.drift_monitor import Monitor

GOOD = NewRecord(gate=GateRecord(passed=True))
BAD = NewRecord(gate=GateRecord(passed=False, reasons=("worse on old normals",)))


def matrix(n: int, d: int = 3, seed: int = 0) -> NDArray[np.float32]:
    """Return `(n, d)` float32."""
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def bounded(**bounds: float) -> Settings:
    """Return settings with these bounds, which may be smaller than a service accepts."""
    return Settings().model_copy(update=bounds)


def monitor_over(redis: Redis, settings: Settings) -> Monitor:
    """Return a monitor of the detectors in the store `redis`."""
    return Monitor(settings, Stores(settings, redis))


@dataclass
class Stored:
    """The adapters over one store, and a worker's steps for detector `pump`."""

    redis: Redis

    def __post_init__(self) -> None:
        self.audit = Audit(self.redis)
        self.detectors = Detectors(self.redis)
        self.buffer = Buffer(self.redis, Settings())
        self.registry = Registry(self.redis, versions_kept=2)
        self.leases = Leases(self.redis)
        self.retrainings = Retrainings(self.redis)
        self.quarantine = Quarantine(self.redis)
        self.erasure = Erasure(self.redis)
        self.revocations = Revocations(self.redis)

    async def make(self, name: str = "pump", **config: object) -> Detector:
        return (await self.detectors.put(name, parse(config)))[1]

    async def get(self, name: str = "pump") -> Detector:
        detector = await self.detectors.get(name)
        assert detector is not None
        return detector

    async def lease(self, name: str = "pump", seconds: float = 30.0) -> Lease:
        lease = await self.leases.acquire(name, seconds)
        assert lease is not None
        return lease

    async def take(self, name: str = "pump") -> Experience:
        experience = await self.buffer.take(name)
        assert experience is not None
        return experience

    async def ask_to_retrain(self, n: int = 40, seed: int = 0, name: str = "pump") -> None:
        """Buffer `n` vectors, and request a retraining by hand."""
        await self.buffer.ingest(name, matrix(n, seed=seed))
        await self.detectors.request_retrain(name)

    async def learn(
        self,
        n: int = 40,
        artifact: bytes | None = None,
        *,
        good: bool = True,
        seed: int = 0,
        anchor: int | None = None,
    ) -> int:
        """Ingest `n` vectors; promote or reject a version that learned the whole buffer."""
        await self.buffer.ingest("pump", matrix(n, seed=seed))
        lease = await self.lease()
        await self.retrainings.start(lease)
        experience = await self.take()
        artifact = artifact or f"artifact after {experience.last}".encode()
        record = msgspec.structs.replace(GOOD if good else BAD, anchor=anchor or msgspec.UNSET)
        number = await self.registry.settle(
            lease, experience, artifact, record, seconds=0.5, promoted=good
        )
        await self.leases.release(lease)
        return number
