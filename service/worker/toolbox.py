"""The adapters, the trainer and the bounds that a worker uses."""

from dataclasses import dataclass
from typing import Self

from service.settings import Settings
from service.signatures import Signer
from service.store.adapters import Stores
from service.store.connection import Connection
from service.worker.trainer_process import Trainer


@dataclass(frozen=True, slots=True)
class Tools:
    """The adapters over one connection pool, the trainer, and the bounds to keep.

    `worker` is this worker's id.
    """

    worker: str
    lease_seconds: float
    artifact_max_bytes: int
    stores: Stores
    trainer: Trainer
    signer: Signer

    @classmethod
    def of(
        cls, settings: Settings, redis: Connection, worker: str, trainer: Trainer | None
    ) -> Self:
        """Return the tools of the worker with this id. `trainer` replaces the usual child."""
        return cls(
            worker=worker,
            lease_seconds=settings.lease_seconds,
            artifact_max_bytes=settings.artifact_max_bytes,
            stores=Stores(settings, redis),
            trainer=trainer
            or Trainer(
                threads=settings.training_threads,
                device=settings.training_device,
                memory_bytes=settings.training_memory_bytes,
                stall_seconds=settings.training_stall_seconds,
                seconds=settings.training_seconds,
            ),
            signer=Signer.of(settings),
        )
