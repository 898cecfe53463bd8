"""What a detector's status says of its regimes: what is known, what came, what to send."""

from collections.abc import Mapping
from typing import Any

from service.champion import Champion
from service.detector import Detector


def of_regimes(detector: Detector, champion: Champion | None) -> dict[str, Any]:
    """Return the fields `regimes`, `advice` and `queries` of the status."""
    if champion is None:
        return {"regimes": [], "advice": None, "queries": []}
    drift = detector.drift if detector.drift.get("version") == champion.number else {}
    tested = drift.get("statistics", {}).get("regimes", {}).get("known", ())
    live = {one["regime"]: one for one in tested}
    known = champion.version.lineage.get("regimes", [])
    learned = sum(about["size"] for about in known)
    return {
        "regimes": [_told(about, live.get(about["number"], {}), learned) for about in known],
        "advice": champion.version.lineage.get("advice"),
        "queries": drift.get("queries", []),
    }


def forgotten(about: Mapping[str, Any]) -> float | None:
    """Return how much more of a regime's replayed vectors alarm than did before; None if new."""
    alarms = about.get("alarms")
    return None if alarms is None else float(alarms["candidate"] - alarms["champion"])


def _told(about: Mapping[str, Any], live: Mapping[str, Any], learned: int) -> dict[str, Any]:
    return {
        "regime": about["number"],
        "size": about["size"],
        "learned": about["size"] / learned,
        "seen": about["seen"],
        "live": live.get("live"),
        "state": live.get("state", "unknown"),
        "forgetting": forgotten(about),
        "score_change": about.get("score_change"),
        "typical": about["typical"],
    }
