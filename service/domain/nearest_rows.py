"""Which waiting rows belong to an incident: those nearer to its rows than to other rows."""

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256  # rows compared at once


def nearer(
    X: NDArray[np.float32], ours: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return (n,) whether each row of X (n, d) is nearer to `ours` (k, d) than to `others` (m, d).

    k is above 0. Each column is divided by its standard deviation over `ours` and `others`; a
    missing value counts as the column's mean.

    >>> ours, others = np.float32([[0, 1], [0, 2]]), np.float32([[9, 1]])
    >>> nearer(np.float32([[1, 2], [8, 1]]), ours, others).tolist()
    [True, False]
    """
    if not len(others):
        return np.ones(len(X), np.bool_)
    known = np.concatenate([ours, others]).astype(np.float64)
    given = ~np.isnan(known)
    count = np.maximum(given.sum(axis=0), 1)
    centre = np.where(given, known, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.square(np.where(given, known - centre, 0.0)).sum(axis=0) / count)
    spread[spread == 0.0] = 1.0

    def scaled(rows: NDArray[np.floating]) -> NDArray[np.float64]:
        deviations: NDArray[np.float64] = (rows.astype(np.float64) - centre) / spread
        return np.nan_to_num(deviations)

    known_scaled = scaled(known)
    lengths = np.square(known_scaled).sum(axis=1)
    nearest = [
        (lengths - 2.0 * scaled(block) @ known_scaled.T).argmin(axis=1)
        for block in np.array_split(X, len(X) // _BLOCK + 1)
    ]
    is_nearer: NDArray[np.bool_] = np.concatenate(nearest) < len(ours)
    return is_nearer
