"""Versions that are trained once, for all tests that need real ones."""

import functools

import numpy as np

from models import Config, Model, Version, train
from service.domain.champion import Champion

Versions = tuple[Version, Version]
"""Two generations of a small detector of dimension 3."""


@functools.cache
def versions() -> Versions:
    """Return two generations of a small detector of dimension 3."""
    X = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    config = Config(score="elbo", model=Model(epochs=5, hidden=(8,), latent=2))
    first = train(None, X, config)
    return first, train(first, X + 1, config)


def champion(number: int = 1, *, name: str = "pump", **fields: object) -> Champion:
    """Return a champion with the version trained as number 1 or 2."""
    version = versions()[(number - 1) % 2]
    made = {
        "name": name,
        "uid": "u",
        "number": number,
        "generation": number,
        "config_revision": 1,
        "version": version,
        "threshold": version.threshold_for({"fpr": 0.01}),
    }
    return Champion(**{**made, **fields})  # type: ignore[arg-type]
