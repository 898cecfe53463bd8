"""How a drift test states its result."""

from typing import Any


def finding(statistic: float, threshold: float) -> dict[str, Any]:
    """Return the statistic, its threshold, and whether the test alarms.

    >>> finding(3.2, 3.0)
    {'statistic': 3.2, 'threshold': 3.0, 'alarm': True}
    """
    return {
        "statistic": round(statistic, 6),
        "threshold": round(threshold, 6),
        "alarm": statistic >= threshold,
    }
