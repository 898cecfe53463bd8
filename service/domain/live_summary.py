"""What an API process tells the drift monitor of the rows that it scored since the last time."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class LiveSummary(Struct, frozen=True):
    """Rows scored by one version in one process, as the stream of summaries carries them.

    `scores` and `p_values` are of `rows` sampled rows, little-endian float32; `counts` counts those
    in the bins of the version's reference, and `regimes` anomalies and regimes among some, both
    little-endian int64. `anomalies` are those among all `n` rows. Earlier releases sent no
    `sha256` and no `regimes`.
    """

    uid: str
    generation: int
    version: int
    sha256: str = ""
    process: str = ""
    n: int = 0
    anomalies: int = 0
    rows: int = 0
    scores: bytes = b""
    p_values: bytes = b""
    counts: bytes = b""
    regimes: bytes = b""
    t: float = 0.0

    def counted(self, features: int) -> NDArray[np.int64]:
        """Return `counts` by feature and bin, (d, B); none where they are of other features."""
        counts = np.frombuffer(self.counts, "<i8").astype(np.int64)
        if len(counts) % features:
            return np.zeros((0, 0), np.int64)
        return counts.reshape(features, -1)

    @property
    def placed(self) -> NDArray[np.int64]:
        """Return `regimes` as numbers, (R + 1,)."""
        return np.frombuffer(self.regimes, "<i8").astype(np.int64)
