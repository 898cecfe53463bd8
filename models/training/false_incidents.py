"""Counts how often a training's normals would open incidents under each rule, for the lineage."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64
from models.config import Policy
from models.parts.calibration import severities
from models.parts.incident_calibration import (
    count_openings,
    false_incidents,
    joined,
    severities_by_rank,
)
from models.parts.lineage import HELD_OUT, FalseIncidents
from models.scores.by_name import base_score
from models.version.version import Version

MOST = 50_000  # the most of the latest rows that are judged again, in about a second


def with_incidents_by_rank(
    version: Version, previous: Version | None, new: NDArray[np.float32], policy: Policy
) -> Version:
    """Return the version with the counts on the normals `new` (n, d), in order of arrival.

    This is for kinds that hold out no rows: the rows are ranked among themselves.
    """
    alpha = version.threshold_for(policy).alpha
    if not 0.0 < alpha < 1.0:
        return version
    counts = count_openings(severities_by_rank(version.score(new[-MOST:]), alpha), alpha)
    return _with_incidents(version, previous, counts)


def with_incidents_on_held_out(
    version: Version,
    previous: Version | None,
    rows: NDArray[np.int64],
    scores: Float64,
    policy: Policy,
) -> Version:
    """Return the version with the counts on blocks of normals that it never learned.

    `scores` (m,) are of the trained vectors with indices `rows` (m,), each by a network that left
    it out. Consecutive rows form a block; no incident extends from one block into the next.
    """
    alpha = version.threshold_for(policy).alpha
    if not 0.0 < alpha < 1.0 or not len(rows):
        return version
    order = np.argsort(rows)
    blocks = np.cumsum(np.diff(rows[order], prepend=rows[order][:1]) > 1, dtype=np.int64)
    if version.config.score == base_score(version.config.score):
        severe = severities(version.calibration.p_values(scores), alpha)
    else:  # `scores` are not relative to their regime, as the calibration is
        severe = severities_by_rank(scores, alpha)
    counts = count_openings(severe[order], alpha, blocks)
    return _with_incidents(version, previous, msgspec.structs.replace(counts, format=HELD_OUT))


def _with_incidents(version: Version, previous: Version | None, counts: FalseIncidents) -> Version:
    """Return the version with these counts, added to those of the previous version."""
    earlier = false_incidents(previous.lineage if previous else None)
    return version.with_lineage(incidents=joined(counts, earlier))
