"""The learning: a variational autoencoder that learns new normals without forgetting old ones.

It takes numpy arrays and returns numpy arrays. `Version`, which serving needs, imports numpy alone.
`train`, `learn` and `use_device` import torch when they are first used.

>>> from models import Config
>>> Config(weights={"w_prev": 0.5, "w_new": 0.5}).strategy
'replay'
"""

from typing import TYPE_CHECKING, Any

from models.columns import Column
from models.config import MIN_VECTORS, Config
from models.errors import AnamnesisError, ArtifactError, ConfigError, TrainingError, VectorError
from models.model_config import Model, Replay
from models.version.version import Version

if TYPE_CHECKING:
    from models.training.train import learn, train
    from models.vae.device import use_device

__all__ = [
    "MIN_VECTORS",
    "AnamnesisError",
    "ArtifactError",
    "Column",
    "Config",
    "ConfigError",
    "Model",
    "Replay",
    "TrainingError",
    "VectorError",
    "Version",
    "learn",
    "train",
    "use_device",
]


def __getattr__(name: str) -> Any:
    # The import is lazy, so that a process that only serves never loads torch.
    if name in {"learn", "train"}:
        from models.training import train as training

        return getattr(training, name)
    if name == "use_device":
        from models.vae.device import use_device

        return use_device
    raise AttributeError(f"module 'models' has no attribute {name!r}")
