"""Commands for the person on call: status, incidents, events, labels, mute."""

import math
import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Key, Name, Url, Why
from service.counted import counted
from service.domain.asked_rate import asked_rate
from service.timestamps import unix_seconds

if TYPE_CHECKING:
    from service.client.answers import AttentionItem

_INCIDENTS = {
    "incident": "id", "state": "state", "verdict": "verdict", "source": "source",
    "what": "sentence",
}  # fmt: skip
_EVENTS: console.Columns = {
    "event": "id",
    "at": lambda event: event.get("timestamp") or event["at"],
    "source": "source",
    "severity": lambda event: f"{event['severity']:.2f}",
    "leading feature": lambda event: (event["attributions"] or [{}])[0].get("feature"),
    "incident": "incident",
}
_NOW = ("detector", "version", "age", "alarms", "asked", "incidents", "drift", "for")
_LEARNING = ("detector", "buffered", "parked", "retraining", "ago", "why")
_LISTED = 50  # most lines of a table, those that need a person first
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

State = Annotated[
    str | None, typer.Option("--state", help="Only `open` or only `closed` incidents.")
]
Most = Annotated[int, typer.Option("--limit", help="Most entries to list.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (status, incidents, events, label, mute, unmute):
        app.command()(command)


def status(url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show the state of store, workers and detectors. Exit with 5 if something needs a person."""
    with console.client(url, key) as client:
        items = client.attention()
        detectors = client.detectors(recent=True)
        service = client.service()
        names = {item["detector"] for item in items}
        worst = sorted(detectors, key=lambda detector: detector["name"] not in names)[:_LISTED]
    if as_json:
        console.show_json({"items": items, "detectors": detectors, "service": service})
    else:
        console.show(_service_line(service))
        _show_status(items, detectors)
        _show_calibration(worst)
        _show_detectors(worst)
        if more := len(detectors) - len(worst):
            typer.echo("")
            console.show(f"{counted(more, 'detector')} more: `anamnesis detectors`")
    if items:
        raise typer.Exit(console.Exit.ATTENTION)


def _service_line(service: Any) -> str:
    store = service["store"]
    state = "store up" if store["up"] else f"store away{_why(store)}"
    heard = ", ".join(f"{worker['heard_seconds']:.0f} s ago" for worker in service["workers"])
    return (
        f"{state}; workers' last reports: {heard or 'none'}; API processes: {len(service['api'])}"
    )


def _why(store: Any) -> str:
    return f": {store['refused']}" if store.get("refused") else ""


def _show_status(items: "list[AttentionItem]", detectors: Any) -> None:
    if items:
        columns = ("needs a person", "detector", "what", "for")
        rows = [
            (item["kind"], item["detector"], item["sentence"], _age(item["since"]))
            for item in items[:_LISTED]
        ]
        console.show_table(columns, rows)
        if more := len(items) - len(rows):
            console.show(f"{counted(more, 'item')} more: `anamnesis status --json`")
    else:
        typer.echo("nothing needs a person")
    for detector in detectors:
        if mute := detector.get("mute"):
            why = f": {mute['why']}" if mute["why"] else ""
            console.show(f"{detector['name']} is muted until {mute['until']} by {mute['who']}{why}")


def _show_calibration(detectors: Any) -> None:
    """Say how far the count is for detectors whose rate of false incidents is not known yet."""
    for detector in detectors:
        rule = detector.get("incident_rule") or {}
        if detector.get("incident_calibration") == "insufficient" and rule.get("needed_rows"):
            console.show(
                f"{detector['name']}: the rate of false incidents is not known yet; counted "
                f"{rule['counted_rows']:,} of {counted(rule['needed_rows'], 'normal')}"
            )


def _show_detectors(detectors: Any) -> None:
    if detectors:
        typer.echo("")
        console.show_table(_NOW, map(_now_row, detectors))
        typer.echo("")
        console.show_table(_LEARNING, map(_learning_row, detectors))


def _now_row(detector: Any) -> tuple[Any, ...]:
    drift, recent = detector.get("drift") or {}, detector.get("recent") or {}
    rows = recent.get("rows")
    return (
        detector["name"],
        detector.get("champion"),
        _age(recent.get("champion_since")),
        _share(recent["alarms"] / rows if rows else None),
        _share(asked_rate((detector.get("config") or {}).get("threshold") or {})),
        (detector.get("incidents") or {}).get("open"),
        drift.get("state"),
        _age(drift.get("since")) if drift.get("state") != "none" else None,
    )


def _learning_row(detector: Any) -> tuple[Any, ...]:
    last = detector.get("last_retraining") or {}
    reasons = last.get("reasons") or [None]
    return (
        detector["name"],
        detector.get("buffered"),
        detector.get("parked"),
        last.get("outcome"),
        _age(last.get("finished_at")),
        reasons[0],
    )


def _age(since: str | None) -> str | None:
    """Return the time since an RFC 3339 time, in words."""
    at = unix_seconds(since)
    if at is None:
        return None
    age = time.time() - at
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if age >= unit:
            return f"{age / unit:.0f} {name}"
    return "0 s"


def _share(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.3g} %"


def incidents(
    detector: Name,
    state: State = None,
    most: Most = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List a detector's incidents, newest first."""
    if state not in {None, "open", "closed"}:
        raise typer.BadParameter("--state must be open or closed")
    with console.client(url, key) as client:
        listed = client.incidents(detector, state=state, limit=most)
    console.show_listed(listed, _INCIDENTS, as_json=as_json)


def events(
    detector: Name,
    incident: Annotated[
        str | None, typer.Option("--incident", help="Show only events of this incident.")
    ] = None,
    most: Most = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List a detector's latest anomalies, newest first."""
    with console.client(url, key) as client:
        listed = client.events(detector, incident=incident, limit=most)
    console.show_listed(listed, _EVENTS, as_json=as_json)


def label(
    detector: Name,
    identifier: Annotated[
        str, typer.Argument(help="An incident's id, or an event's.", metavar="ID")
    ],
    verdict: Annotated[
        str, typer.Argument(help="normal, anomaly, or (of an incident) withdraw.", metavar="WHAT")
    ],
    why: Why = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Label an incident or an event. The answer says what changes."""
    decisions = {"normal": "dismiss", "anomaly": "confirm", "withdraw": "withdraw"}
    if verdict not in decisions:
        raise typer.BadParameter("give normal, anomaly or withdraw")
    of_incident = identifier.startswith("i")
    if not of_incident and verdict == "withdraw":
        raise typer.BadParameter("to withdraw an event's label, send DELETE .../labels/ID")
    with console.client(url, key) as client:
        if of_incident:
            answer: Any = client.decide(detector, identifier, decisions[verdict], why)
            line = answer["effect"]
        else:
            answer = client.label(detector, identifier, verdict)
            line = f"labelled {verdict}; buffered: {counted(answer['buffered'], 'vector')}"
    console.show_answer(answer, line, as_json=as_json)


def mute(
    detector: Name,
    duration: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h or 1d.")],
    why: Why = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Mute a detector for a while: it pages nobody and learns nothing by itself."""
    with console.client(url, key) as client:
        answer = client.mute(detector, seconds(duration), why)
    line = f"{detector} pages nobody and learns nothing by itself until {answer['mute']['until']}"
    console.show_answer(answer, line, as_json=as_json)


def unmute(
    detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """End a mute."""
    with console.client(url, key) as client:
        client.unmute(detector)
    console.show_answer({"mute": None}, f"{detector} pages and learns again", as_json=as_json)


def seconds(text: str) -> float:
    """Return a duration in seconds.

    >>> seconds("2h"), seconds("90s")
    (7200.0, 90.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or not math.isfinite(float(match[1])):
        raise typer.BadParameter("give a number and one of s, m, h, d: 90s, 30m, 2h, 1d")
    return float(match[1]) * _UNITS[match[2]]
