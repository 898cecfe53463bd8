"""The summary of scored rows that an API process sends to the drift monitor."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class LiveSummary(Struct, frozen=True):
    """The rows that one version scored in one process since the last summary.

    `anomalies` is the number of anomalies among all `n` rows. `scores` and `p_values` belong to
    `rows` sampled rows, as little-endian float32. `counts` has the sampled rows in each bin of the
    version's reference. `regimes` has the number of anomalies in a sample, then the rows of each
    regime in it. `counts` and `regimes` are little-endian int64. Earlier releases sent no `sha256`
    and no `regimes`.
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

    def bin_counts(self, features: int) -> NDArray[np.int64]:
        """Return `counts` by feature and bin, (d, B); an empty array if the features differ."""
        counts = np.frombuffer(self.counts, "<i8").astype(np.int64)
        if len(counts) % features:
            return np.zeros((0, 0), np.int64)
        return counts.reshape(features, -1)

    @property
    def regime_counts(self) -> NDArray[np.int64]:
        """Return `regimes` as numbers, (R + 1,)."""
        return np.frombuffer(self.regimes, "<i8").astype(np.int64)
