"""How many steps a training takes at most, given its config and its rows."""

from collections.abc import Mapping

import numpy as np

from models.config import Config
from models.errors import ConfigError
from models.kind_table import KINDS

THOROUGH = 1.5  # networks with cheap steps train for this many times the epochs
MOST_STEPS = 5_000_000  # over an hour on one core, even for the smallest networks


def auto_epochs(n: int) -> int:
    """Return the epochs of a large network: 120 for few vectors, falling to 15 for many."""
    return int(np.clip(120_000 / n, 15, 120))


def auto_batch_size(n: int) -> int:
    """Return the default batch size: how many vectors a step learns from."""
    if n < 1_000:
        return 64
    return 128 if n < 20_000 else 256


def check_steps(config: Config, rows: int) -> None:
    """Raise ConfigError if learning `rows` vectors could take more than `MOST_STEPS` steps."""
    if config.model == "auto" or KINDS[config.kind].fixed:
        return
    model = config.model
    epochs = model.epochs or THOROUGH * auto_epochs(rows)
    batch_size = model.batch_size or auto_batch_size(rows)
    weights = config.weights
    share = weights.get("w_new", 1.0) if isinstance(weights, Mapping) else 1.0
    steps = epochs * rows / (batch_size * share)
    if steps > MOST_STEPS:
        raise ConfigError(
            f"model.epochs: {epochs:g} epochs of {rows} vectors (the most that one training takes) "
            f"in batches of {batch_size} need {steps:.2g} steps, but a training may have "
            f"{MOST_STEPS}: set fewer epochs, larger batches or smaller experiences"
        )
