"""The learning: a variational autoencoder that learns new normals without forgetting old ones.

It takes numpy arrays and returns numpy arrays. `Version`, which serving needs, imports numpy alone.
`train` and `learn` import torch when they are first used.

>>> from models import Config
>>> Config(weights={"w_prev": 0.5, "w_new": 0.5}).strategy
'replay'
"""

from typing import TYPE_CHECKING, Any

from models.config import MIN_VECTORS, Config, Model, Replay
from models.errors import AnamnesisError, ArtifactError, ConfigError, TrainingError, VectorError
from models.version.version import Version

if TYPE_CHECKING:
    from models.training.train import learn, train

__all__ = [
    "MIN_VECTORS",
    "AnamnesisError",
    "ArtifactError",
    "Config",
    "ConfigError",
    "Model",
    "Replay",
    "TrainingError",
    "VectorError",
    "Version",
    "learn",
    "train",
]


def __getattr__(name: str) -> Any:
    # The import is lazy, so that a process that only serves never loads torch.
    if name in {"learn", "train"}:
        from models.training import train as training

        return getattr(training, name)
    raise AttributeError(f"module 'models' has no attribute {name!r}")
