"""What the retrainings of one worker share."""

from dataclasses import dataclass

from service.settings import Settings
from service.signatures import Signer
from service.store.adapters import Stores
from service.store.durability import Durability
from service.worker.trainer_process import Trainer


@dataclass(frozen=True, slots=True)
class Tools:
    """The adapters, the trainer, the signer and the settings of the worker with the id `worker`.

    `durability` says whether the store keeps what it acknowledges.
    """

    worker: str
    settings: Settings
    stores: Stores
    trainer: Trainer
    signer: Signer
    durability: Durability
