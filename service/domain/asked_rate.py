"""The rate of false alarms that a threshold policy asks for. The command line imports no model."""

from collections.abc import Mapping
from typing import Any


def asked_rate(policy: Mapping[str, Any]) -> float | None:
    """Return the rate of false alarms that a policy sets, or None if it sets no rate.

    >>> asked_rate({"fpr": 0.01}), asked_rate({"value": 9.0})
    (0.01, None)
    """
    for name in ("fpr", "pot"):
        if name in policy:
            return float(policy[name])
    return 1.0 - float(policy["quantile"]) if "quantile" in policy else None
