"""What a version's record says about the version itself, however it came to be."""

from collections.abc import Mapping
from typing import Any

from models import Version
from models.config import Policy
from models.parts.labels import Labels

_FROM_LINEAGE = (
    "strategy", "n_prev", "n_new", "learned", "seed", "training", "bytes_kept", "regimes",
    "probes", "advice", "notes",
)  # fmt: skip


def anchor(record: Mapping[str, Any]) -> int:
    """Return the version that the gate holds the successors of this champion against.

    It is the first of its line, or the last that a person answers for: promoted by hand, or by
    `report`, though the gate had rejected it, or imported.
    """
    passed = (record.get("gate") or {}).get("passed")
    own = record["outcome"] != "promoted" or not passed
    return int(record["version"] if own else record.get("anchor") or record["version"])


def describe(version: Version, policy: Policy, labels: Labels | None) -> dict[str, Any]:
    """Return the JSON-able part of a record that follows from `version` alone.

    `policy` is the detector's threshold policy at this moment, `labels` what decides under it;
    both may move the threshold later.
    """
    lineage = version.lineage.to_dict()
    threshold = version.threshold_for(policy, labels)
    return {
        **{name: lineage[name] for name in _FROM_LINEAGE if name in lineage},
        "weights": {"w_prev": version.lineage.w_prev, "w_new": version.lineage.w_new},
        "parent_sha256": version.lineage.parent,
        "dimension": version.dimension,
        "threshold": {
            "value": threshold.value,
            "alpha": threshold.alpha,
            "policy": dict(policy),
        },
        "calibration": {
            "kind": threshold.calibration,
            "scores": len(version.calibration.scores),
            "held": version.calibration.held(threshold.value)._asdict(),
        },
    }
