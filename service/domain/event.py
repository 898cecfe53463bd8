"""A recorded anomaly, and what a person says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.timestamps import rfc3339


@dataclass(frozen=True, slots=True)
class Event:
    """One vector that was anomalous under `version`; `at` is seconds since 1970.

    `id` is given by the store; `attributions` are dicts as in a scoring answer.
    """

    at: float
    vector: NDArray[np.float32]
    score: float
    p_value: float
    severity: float
    version: int
    generation: int
    attributions: Sequence[dict[str, Any]] = field(default=())
    id: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON carries it."""
        return {
            "id": self.id,
            "at": rfc3339(self.at),
            "vector": self.vector.tolist(),
            "score": self.score,
            "p_value": self.p_value,
            "severity": self.severity,
            "version": self.version,
            "generation": self.generation,
            "attributions": list(self.attributions),
        }


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says of a vector, and of which event it was, if of one."""

    label: Literal["normal", "anomaly"]
    vector: NDArray[np.float32]
    event: str | None = None
    at: float = 0.0
    id: str = ""
