"""Learns normals with missing values: fills them in, and compares scores with and without them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array
from models.version.imputation import DONORS, DRAWN, filled_from_similar
from models.version.old_normals import like_old_normals
from models.version.version import Version


def filled(new: Array, previous: Version | None, categories: Sequence[int]) -> Array:
    """Return the new normals (n, d), in the client's units, with each NaN filled in.

    The values come from similar rows. Rows that the previous version draws are among them. The
    values that it expects would be too much alike to be learned.
    """
    if previous is None or not np.isnan(new).any():
        return filled_from_similar(new, categories)
    rng = np.random.default_rng([previous.lineage.seed, 15])
    old = like_old_normals(previous, previous.config.score, DONORS, rng)
    rows = np.concatenate([new, previous.in_client_units(old)])
    return filled_from_similar(rows, categories)[: len(new)]


def with_gaps_compared(version: Version, new: Array, missing: NDArray[np.bool_]) -> Version:
    """Return the version with its scale of vectors with gaps, `Version.gaps`.

    It was trained on `new` (n, d), in the client's units, where the values `missing` (n, d) were
    filled in. Later vectors lack the same columns, so the scores are compared with these gaps: of
    the rows themselves in a first experience with gaps, otherwise of drawn vectors, which stand for
    all normals.
    """
    if version.dimension < 2:
        return version
    rng = np.random.default_rng([version.lineage.seed, 14])
    if version.lineage.experiences == 1 and missing.any():
        some = np.resize(rng.permutation(len(new)), DRAWN)  # fewer rows repeat
        x = version.scaler.transform(new[some])
    else:
        some = rng.integers(len(new), size=DRAWN)
        x = like_old_normals(version, version.config.score, DRAWN, rng)
    return replace(version, gaps=version.gap_scale(x, missing[some]))
