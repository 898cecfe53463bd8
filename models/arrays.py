"""Array types, and the check of a caller's vectors."""

import math
from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.columns import named_matrix, quoted, table_names
from models.errors import VectorError

Array = NDArray[np.float32]
Float64 = NDArray[np.float64]
LOG_2PI = math.log(2.0 * math.pi)


def check_vectors(
    X: NDArray[Any],
    dimension: int | None,
    *,
    gaps: bool,
    names: tuple[str, ...] | None,
    words: Container[str],
) -> Array:
    """Return X as a C-contiguous float32 array (n, d); raise VectorError if that is impossible.

    X may be a table with named columns (`models.columns`). Its columns are then put in the order of
    `names`; those among `words` are categories. With `gaps`, NaN marks a missing value, and each
    row needs at least one value that is not missing.
    """
    if type(X) is not np.ndarray:
        names = names or table_names(X)
        X = named_matrix(X, names, words)
    try:
        X = np.ascontiguousarray(X, dtype=np.float32)
    except (TypeError, ValueError):
        raise VectorError(
            "vectors: not a matrix of numbers, nor a table with named columns"
        ) from None
    if X.ndim != 2 or not X.shape[1]:
        raise VectorError(f"vectors: an array of shape {X.shape}, not (n, d)")
    if dimension is not None and X.shape[1] != dimension:
        raise VectorError(f"vectors: {X.shape[1]} columns, not {dimension}")
    if gaps and np.isnan(X).any():
        if (empty := np.isnan(X).all(axis=1)).any():
            raise VectorError(f"vectors: every value of row {int(empty.argmax())} is missing")
        if np.isinf(X).any():
            raise VectorError("vectors: a value is infinite")
    elif not np.isfinite(X).all():
        row, column = np.argwhere(~np.isfinite(X))[0].tolist()
        name = column if names is None else quoted([names[column]])
        raise VectorError(f"vectors: row {row}, column {name} is not finite")
    return X
