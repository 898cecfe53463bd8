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

    The values come from similar rows, among them rows that the previous version draws. The values
    that this version expects would be too alike to be learned.
    """
    if previous is None or not np.isnan(new).any():
        return filled_from_similar(new, categories)
    rng = np.random.default_rng([previous.lineage.seed, 15])
    old = like_old_normals(previous, previous.config.score, DONORS, rng)
    rows = np.concatenate([new, previous.in_client_units(old)])
    return filled_from_similar(rows, categories)[: len(new)]


def with_gaps_compared(
    version: Version, previous: Version | None, new: Array, missing: NDArray[np.bool_]
) -> Version:
    """Return the version with its scale of vectors with gaps, `Version.gaps`.

    It was trained on `new` (n, d), in the client's units, where the values `missing` (n, d) were
    filled in. Later vectors lack the same columns, so the scores of these rows are compared with
    and without their gaps. The scale of the `previous` version counts as much as its rows.
    """
    if version.dimension < 2:
        return version
    x, calibration = version.scaler.transform(new), version.calibration.scores
    learned = np.flatnonzero(version.score_scaled(x) <= calibration[-1])  # without strays
    if not len(learned):
        learned = np.arange(len(x))
    rng = np.random.default_rng([version.lineage.seed, 14])
    rows = np.resize(rng.permutation(learned), DRAWN)  # fewer rows are repeated
    scale = version.gap_scale(x[rows], missing[rows])
    old = previous.with_config(version.config).gaps if previous is not None else None
    if old is not None:
        old = old.with_calibration(calibration, version.dimension)
        scale = old.joined(scale, len(new) / version.lineage.learned)
    return replace(version, gaps=scale)
