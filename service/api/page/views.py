"""What each page shows: the answers of the API, brought into the order in which they are read."""

import asyncio
from typing import Any

from service.api.page import words
from service.api.page.own_api import Answer, OwnApi
from service.api.page.time_range import TimeRange

SHOWN = 20  # detectors with a history on the overview; the others are listed below
_POINTS, _SPARKS = 600, 48  # of a chart, of a small one
_INCIDENTS, _VERSIONS, _ROWS, _DRAWN = 50, 20, 25, 5
_BAD = {"degraded": 0, "new_regime": 1, "known_regime": 2}
_MISSING = Answer(404, {"detail": "not there"})


async def overview(api: OwnApi, asked: TimeRange, now: float) -> dict[str, Any]:
    """Return what `/` shows: what needs a person, the detectors worst first, the service."""
    detectors, attention, service = await asyncio.gather(
        api.get("/v1/detectors"), api.get("/v1/attention"), api.get("/v1/service")
    )
    waiting = attention.document["items"] if attention.ok else []
    found = detectors.document["detectors"] if detectors.ok else []
    order = {item["detector"]: place for place, item in reversed(list(enumerate(waiting)))}
    found = sorted(
        found,
        key=lambda one: (
            order.get(one["name"], len(order)), _BAD.get(one["drift"]["state"], 3), one["name"],
        ),
    )  # fmt: skip
    rows = await asyncio.gather(*(_row(api, one, asked, now) for one in found[:SHOWN]))
    return {
        "attention": attention,
        "items": [item | {"page": _page_of(item)} for item in waiting],
        "detectors": detectors,
        "rows": rows,
        "others": [one["name"] for one in found[SHOWN:]],
        "service": service,
    }


def _page_of(item: dict[str, Any]) -> str:
    """Return the page of what waits: its path in the API, without `/v1`."""
    path = str(item["path"]).removeprefix("/v1")
    if path in {"/service", ""}:
        return "/"
    head, _, last = path.rpartition("/")
    return f"{head}#{last}" if last in {"drift", "quarantine"} else path


async def _row(api: OwnApi, status: dict[str, Any], asked: TimeRange, now: float) -> dict[str, Any]:
    name = status["name"]
    history, moves = await asyncio.gather(
        api.get(f"/v1/detectors/{name}/history", **asked.query, points=_SPARKS),
        api.get(f"/v1/detectors/{name}/generations", limit=1),
    )
    buckets = history.document["buckets"] if history.ok else []
    moved = moves.document["generations"] if moves.ok else []
    rows = sum(one["rows"] for one in buckets)
    return {
        "status": status,
        "spark": words.sparkline([one["severity_p99"] for one in buckets]),
        "rows": rows,
        "held": sum(one["alarms"] for one in buckets) / rows if rows else None,
        "asked": asked_rate(status),
        "age": words.seconds_since(moved[0]["at"], now) if moved else None,
    }


def asked_rate(status: dict[str, Any]) -> float | None:
    """Return the rate of false alarms that the detector's policy asks for, None for others."""
    policy = status["config"]["threshold"]
    for name in ("fpr", "pot"):
        if name in policy:
            return float(policy[name])
    return 1.0 - float(policy["quantile"]) if "quantile" in policy else None


async def detector(api: OwnApi, name: str, asked: TimeRange) -> dict[str, Any]:
    """Return what `/detectors/{name}` shows; `status` says why where there is none."""
    status = await api.get(f"/v1/detectors/{name}")
    if not status.ok:
        return {"status": status}
    path = f"/v1/detectors/{name}"
    champion = status.document["champion"]
    history, incidents, versions, moves, quarantine, labels, memory = await asyncio.gather(
        api.get(f"{path}/history", **asked.query, points=_POINTS),
        api.get(f"{path}/incidents", **asked.query, limit=_INCIDENTS),
        api.get(f"{path}/versions"),
        api.get(f"{path}/generations", limit=_VERSIONS),
        api.get(f"{path}/quarantine"),
        api.get(f"{path}/labels", limit=_ROWS),
        api.get(f"{path}/versions/{champion}/sample", n=_DRAWN) if champion else _none(),
    )
    faults = incidents.document["incidents"] if incidents.ok else []
    buckets = history.document["buckets"] if history.ok else []
    return {
        "status": status,
        "headline": headline(status.document, faults, buckets),
        "history": history,
        "incidents": incidents,
        "faults": sorted(faults, key=lambda one: one["state"] != "open"),
        "versions": versions,
        "records": _champion_first(versions, status.document["champion"]),
        "moves": moves,
        "quarantine": quarantine,
        "held_back": await _with_rows(api, path, quarantine),
        "labels": labels,
        "memory": memory,
        "typical": _typical(status.document),
        "columns": _columns(status),
        "example": _example(status.document, memory),
        "asked_rate": asked_rate(status.document),
        "chart": {
            "at": [one["at"] for one in buckets],
            "max": [one["severity_max"] for one in buckets],
            "p99": [one["severity_p99"] for one in buckets],
            "rows": [one["rows"] for one in buckets],
            "alarms": [one["alarms"] for one in buckets],
            "generation": [one["generation"] for one in buckets],
            "incidents": [[one["start"], one["end"]] for one in faults],
            "from": asked.query["from"],
            "to": asked.query["to"],
        },
    }


def _typical(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the typical vector of each regime, by feature."""
    return [
        {
            "regime": one["regime"],
            "vector": {str(told["feature"]): told["value"] for told in one["typical"] or ()},
        }
        for one in status["regimes"]
    ]


def _example(status: dict[str, Any], memory: Answer) -> str:
    """Return a vector to begin with: the first that was drawn; '' where there is none."""
    if not memory.ok or status["config"].get("context"):
        return ""
    return ", ".join(words.number(value, 4) for value in memory.document["vectors"][0])


def headline(
    status: dict[str, Any], faults: list[dict[str, Any]], buckets: list[dict[str, Any]]
) -> str:
    """Return in one sentence whether the detector is well, and since when."""
    if status["champion"] is None:
        return (
            f"It has not learned yet: {status['buffered']} vectors are buffered, "
            f"{status['needed']} more are needed."
        )
    open_ones = [one for one in faults if one["state"] == "open" and one["verdict"] is None]
    if open_ones:
        since = words.moment(min(one["start"] for one in open_ones))
        some = "One incident is" if len(open_ones) == 1 else f"{len(open_ones)} incidents are"
        return f"{some} open since {since} UTC."
    if status["drift"]["state"] in {"degraded", "new_regime"}:
        return f"The input drifts: {status['drift']['state'].replace('_', ' ')}."
    if not buckets:
        return "It is ready. No row was scored in this time range."
    rows, alarms = sum(one["rows"] for one in buckets), sum(one["alarms"] for one in buckets)
    return f"It is well: {alarms:,} of {rows:,} rows alarmed, no incident is open."


def _champion_first(versions: Answer, champion: int | None) -> list[dict[str, Any]]:
    records = versions.document["versions"] if versions.ok else []
    newest = sorted(records, key=lambda one: (one["version"] != champion, -int(one["version"])))
    return newest[:_VERSIONS]


async def _with_rows(api: OwnApi, path: str, quarantine: Answer) -> list[dict[str, Any]]:
    """Return what is held back and not decided, with the first rows of each entry."""
    entries = quarantine.document["quarantine"] if quarantine.ok else []
    waiting = [one for one in entries if not one.get("decision")][:_ROWS]
    shown = await asyncio.gather(
        *(
            api.get(f"{path}/quarantine/{one['id']}") if one["kind"] == "rows" else _none()
            for one in waiting
        )
    )
    return [
        one | {"vectors_shown": rows.document["vectors"][:5] if rows.ok else []}
        for one, rows in zip(waiting, shown, strict=True)
    ]


async def _none() -> Answer:
    return _MISSING


async def incident(api: OwnApi, name: str, identity: str) -> dict[str, Any]:
    """Return what `/detectors/{name}/incidents/{id}` shows."""
    path = f"/v1/detectors/{name}"
    found, listed, status = await asyncio.gather(
        api.get(f"{path}/incidents/{identity}"),
        api.get(f"{path}/incidents", limit=_INCIDENTS),
        api.get(path),
    )
    if not found.ok:
        return {"incident": found}
    one = found.document
    leading = {str(part["feature"]) for part in one["features"][:1]}
    others = listed.document["incidents"] if listed.ok else []
    largest = max((abs(part["contribution"]) for part in one["features"]), default=1.0) or 1.0
    return {
        "incident": found,
        "features": [
            part | {"bar": round(100 * abs(part["contribution"]) / largest)}
            for part in one["features"]
        ],
        "rows": one["rows"][:_ROWS],
        "columns": _columns(status),
        "alike": [
            other
            for other in others
            if other["id"] != one["id"]
            and leading & {str(part["feature"]) for part in other["features"][:1]}
        ][:10],
    }


def _columns(status: Answer) -> list[str]:
    """Return the names of the detector's features, numbers where it has none."""
    if not status.ok:
        return []
    config = status.document["config"]
    named = config.get("features") or [one["name"] for one in config.get("columns") or ()]
    return [str(one) for one in named] or [
        str(place) for place in range(status.document["dimension"] or 0)
    ]
