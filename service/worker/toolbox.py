"""The adapters, the trainer and the bounds that a worker uses."""

from dataclasses import dataclass
from typing import Self

from service.settings import Settings
from service.signatures import Signer
from service.store import adapters
from service.store.buffer import Buffer
from service.store.connection import Connection
from service.store.detectors import Detectors
from service.store.due_index import DueIndex
from service.store.events import Events
from service.store.labels import LabelStore
from service.store.leases import Leases
from service.store.live_summaries import LiveSummaries
from service.store.registry import Registry
from service.store.retrainings import Retrainings
from service.store.words import Words
from service.worker.trainer_process import Trainer


@dataclass(frozen=True, slots=True)
class Tools:
    """The adapters over one connection pool, the trainer, and the bounds to keep.

    `worker` is this worker's id.
    """

    worker: str
    lease_seconds: float
    artifact_max_bytes: int
    detectors: Detectors
    due: DueIndex
    buffer: Buffer
    retrainings: Retrainings
    registry: Registry
    leases: Leases
    events: Events
    labels: LabelStore
    live: LiveSummaries
    words: Words
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
            detectors=adapters.detectors(settings, redis),
            due=DueIndex(redis),
            buffer=adapters.buffer(settings, redis),
            retrainings=Retrainings(redis),
            registry=adapters.registry(settings, redis),
            leases=Leases(redis),
            events=adapters.events(settings, redis),
            labels=adapters.labels(settings, redis),
            live=LiveSummaries(redis),
            words=Words(redis),
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
