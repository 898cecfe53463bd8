"""Commands for drift and the quarantine, and to start, pause and resume retraining."""

from typing import Annotated, Any, Literal

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Commands, Key, Name, Url
from service.counted import counted

Entry = Annotated[
    str, typer.Argument(help="The id of an entry of the quarantine.", metavar="ENTRY")
]

_ENTRIES = {
    "entry": "id", "kind": "kind", "vectors": "vectors", "since": "parked_at", "reason": "reason",
}  # fmt: skip

_TO_DO = {
    "none": "Nothing needs to be done.",
    "known_regime": "The input moved, but the rows score as normal. If nobody expects that, check "
    "the sensors.",
    "new_regime": "Look for the fault, or, if the new input is normal, send normal batches of it.",
    "degraded": "Anomalies come in a burst. Do not learn now; look for the fault.",
}
# What each test measures, and the unit of its numbers.
_TESTS = {
    "martingale": ("evidence that the scores moved", "nats"),
    "adwin": ("latest change of the scores (for information)", "nats"),
    "anomalies": ("anomalies among the latest rows", "%"),
    "inputs": ("features beyond their bounds, in sum", "%"),
    "regimes": ("rows that changed their regime", "%"),
}

quarantine = typer.Typer(
    cls=Commands,
    help="List, release or discard rows that admission held back.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (drift, pause, resume, retrain):
        app.command()(command)
    app.add_typer(quarantine, name="quarantine")


def drift(detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show the drift state, what to do, and the tests and features behind it."""
    with console.client(url, key) as client:
        report: Any = client.drift(detector)
    if as_json:
        console.show_json(report)
        return
    at = report.get("at")
    looked = f"computed {at}" if at else "never computed"
    stale = report.get("stale")
    console.show(f"{detector}: {report['state']}; {looked}{f'; {stale}' if stale else ''}")
    console.show(_TO_DO[report["state"]])
    rows = _tests(report.get("statistics") or {})
    console.show_table(("what", "verdict", "measured", "alarms from"), rows)


def _tests(statistics: Any) -> list[tuple[Any, ...]]:
    """Return the row of each test in the table, with its unit; the tests of features last."""
    tests = [
        (what, unit, statistics[name])
        for name, (what, unit) in _TESTS.items()
        if statistics.get(name)
    ]
    tests += [
        (f"rows in which {feature['feature']} moved, at least", "%", feature)
        for feature in statistics.get("features") or ()
    ]
    return [
        (
            what,
            "alarm" if result["alarm"] else "as learned",
            _measured(result["statistic"], unit),
            _measured(result["threshold"], unit),
        )
        for what, unit, result in tests
    ]


def _measured(value: float, unit: str) -> str:
    return f"{100 * value:.3g} %" if unit == "%" else f"{value:.3g} {unit}"


def pause(detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Pause retraining: no trigger starts one. `retrain` by hand still works."""
    _set_paused(detector, url, key, paused=True, as_json=as_json)


def resume(
    detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Resume retraining: triggers start it again."""
    _set_paused(detector, url, key, paused=False, as_json=as_json)


def retrain(
    detector: Name,
    wait: Annotated[float, typer.Option(min=1, help="Longest wait, seconds.")] = 3600.0,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Learn what is buffered now, and wait for the outcome."""
    from service.cli import retraining
    from service.cli.sending import tell_outcomes

    with console.client(url, key) as client:
        outcome = retraining.retrain(client, detector, wait)
    if as_json:
        console.show_json(outcome)
    else:
        tell_outcomes({detector: outcome}, named=False)


def _set_paused(detector: str, url: str, key: str | None, *, paused: bool, as_json: bool) -> None:
    with console.client(url, key) as client:
        config = client.change(detector, {"retrain": {"paused": paused}})
        buffered = client.detector(detector).get("buffered")
    word = "is paused" if paused else "goes on"
    line = f"retraining of {detector} {word}; buffered: {counted(buffered or 0, 'vector')}"
    console.show_answer(config, line, as_json=as_json)


@quarantine.command("list")
def held(detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List the quarantine, oldest entry first."""
    with console.client(url, key) as client:
        console.show_listed(client.quarantine(detector), _ENTRIES, as_json=as_json)


@quarantine.command()
def release(
    detector: Name, entry: Entry, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Send an entry of the quarantine to the buffer, so that it is learned."""
    _decide(detector, entry, "release", url, key, as_json=as_json)


@quarantine.command()
def discard(
    detector: Name, entry: Entry, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Delete an entry of the quarantine. It is never learned."""
    _decide(detector, entry, "discard", url, key, as_json=as_json)


def _decide(
    detector: str,
    entry: str,
    decision: Literal["release", "discard"],
    url: str,
    key: str | None,
    *,
    as_json: bool,
) -> None:
    with console.client(url, key) as client:
        decided = client.decide_quarantine(detector, entry, decision)
    became = "buffered" if decision == "release" else "deleted"
    line = f"{became}: {counted(decided['vectors'], 'vector')} of {entry}"
    console.show_answer(decided, line, as_json=as_json)
