"""How often the normals of a training would open incidents, by every rule: part of the lineage."""

import numpy as np
from numpy.typing import NDArray

from models.config import Policy
from models.parts.incident_rule import Curve, curve, ranked
from models.version.version import Version

MOST = 50_000  # latest rows that are judged once more: a second or so


def counted(
    version: Version, previous: Version | None, new: NDArray[np.float32], policy: Policy
) -> Version:
    """Return the version, its lineage with the curve of the normals new (n, d) as they arrived.

    The curve goes on from the previous version's: what its normals showed of runs holds on.
    """
    alpha = version.threshold_for(policy).alpha
    if not 0.0 < alpha < 1.0:
        return version
    earlier = Curve.of(previous.lineage) if previous else None
    found = curve(ranked(version.score(new[-MOST:]), alpha), alpha).joined(earlier)
    return version.recorded(incidents=found.kept())
