"""What an installed anamnesis offers: the learning as a library, and the client of a service.

In a checkout `models` and `service` are packages of their own; installed from a wheel they are
`anamnesis.models` and `anamnesis.service`, so that a project may have its own of those names.

>>> from anamnesis import Config
>>> Config(weights={"w_prev": 0.5, "w_new": 0.5}).strategy
'replay'
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models import (
        AnamnesisError,
        Column,
        Config,
        ConfigError,
        Model,
        Replay,
        TrainingError,
        Version,
        train,
        use_device,
    )
    from service.client import Client

__all__ = [
    "AnamnesisError",
    "Client",
    "Column",
    "Config",
    "ConfigError",
    "Model",
    "Replay",
    "TrainingError",
    "Version",
    "train",
    "use_device",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that the command line answers at once, and one that only scores never loads torch.
    if name == "Client":
        from service.client import Client

        return Client
    if name in __all__:
        import models as learning

        return getattr(learning, name)
    raise AttributeError(f"module 'anamnesis' has no attribute {name!r}")
