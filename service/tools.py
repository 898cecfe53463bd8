"""What a worker retrains with."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from service.buffer import Buffer
from service.detectors import Detectors
from service.events import Events
from service.lease import Leases
from service.live import Live
from service.registry import Registry
from service.retraining import Retrainings
from service.seal import Seal
from service.settings import Settings
from service.trainer_client import Trainer


@dataclass(frozen=True, slots=True)
class Tools:
    """The adapters over one connection pool, the trainer, and the bounds to keep.

    `worker` is this worker's id.
    """

    worker: str
    lease_seconds: float
    artifact_max_bytes: int
    detectors: Detectors
    buffer: Buffer
    retrainings: Retrainings
    registry: Registry
    leases: Leases
    events: Events
    live: Live
    trainer: Trainer
    seal: Seal

    @classmethod
    def of(cls, settings: Settings, redis: Redis, worker: str, trainer: Trainer | None) -> Self:
        """Return the tools of the worker with this id; `trainer` stands in for the usual child."""
        return cls(
            worker=worker,
            lease_seconds=settings.lease_seconds,
            artifact_max_bytes=settings.artifact_max_bytes,
            detectors=Detectors(redis, max_detectors=settings.max_detectors),
            buffer=Buffer(redis, experience_max_vectors=settings.experience_max_vectors),
            retrainings=Retrainings(redis),
            registry=Registry(redis, versions_kept=settings.versions_kept),
            leases=Leases(redis),
            events=Events(redis),
            live=Live(redis),
            trainer=trainer
            or Trainer(
                threads=settings.training_threads,
                memory_bytes=settings.training_memory_bytes,
                stall_seconds=settings.training_stall_seconds,
            ),
            seal=Seal.of(settings),
        )
