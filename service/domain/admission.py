"""What admission decided about the rows of a batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Verdict:
    """What admission, with `version`, says of the n rows of a batch.

    `kept` and `held` mark, (n,), what goes to the buffer and what waits for a person; the rest is
    known so well that it is counted and not stored. `novel` of the kept rows are of a new regime.
    `shares` of known, novel and suspicious rows sum to 1.
    """

    version: int
    kept: NDArray[np.bool_]
    held: NDArray[np.bool_]
    novel: int
    reason: str
    shares: dict[str, float]
