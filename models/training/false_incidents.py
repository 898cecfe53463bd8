"""How often the normals of a training would open incidents, by every rule: part of the lineage."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64
from models.config import Policy
from models.parts.calibration import severities
from models.parts.incident_rule import Curve, curve, ranked
from models.scores.by_name import base
from models.version.version import Version

MOST = 50_000  # latest rows that are judged once more: a second or so


def by_rank(
    version: Version, previous: Version | None, new: NDArray[np.float32], policy: Policy
) -> Version:
    """Return the version, its lineage with the curve of the normals new (n, d) as they arrived.

    For what holds no rows out: the rows are ranked among themselves.
    """
    alpha = version.threshold_for(policy).alpha
    if not 0.0 < alpha < 1.0:
        return version
    found = curve(ranked(version.score(new[-MOST:]), alpha), alpha)
    return _recorded(version, previous, found)


def on_held_out(
    version: Version,
    previous: Version | None,
    rows: NDArray[np.int64],
    scores: Float64,
    policy: Policy,
) -> Version:
    """Return the version, its lineage with the curve of blocks of normals that it never learned.

    `scores` (m,) are those of the trained vectors numbered `rows` (m,), each by a network that left
    it out. Rows that follow each other are a block; no incident reaches from one into the next.
    """
    alpha = version.threshold_for(policy).alpha
    if not 0.0 < alpha < 1.0 or not len(rows):
        return version
    order = np.argsort(rows)
    blocks = np.cumsum(np.diff(rows[order], prepend=rows[order][:1]) > 1, dtype=np.int64)
    if version.config.score == base(version.config.score):
        severe = severities(version.calibration.p_values(scores), alpha)
    else:  # the scores are those before they were made relative to their regime
        severe = ranked(scores, alpha)
    found = curve(severe[order], alpha, blocks)
    return _recorded(version, previous, replace(found, held_out=True))


def _recorded(version: Version, previous: Version | None, found: Curve) -> Version:
    """Return the version with the curve, which goes on from the previous version's.

    What earlier normals showed of runs holds on.
    """
    earlier = Curve.of(previous.lineage) if previous else None
    return version.recorded(incidents=found.joined(earlier).kept())
