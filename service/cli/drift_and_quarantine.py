"""Commands for drift and the quarantine, and to pause and resume retraining."""

from typing import Annotated, Any, Literal

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Commands, Key, Name, Url

Entry = Annotated[
    str, typer.Argument(help="The id of an entry of the quarantine.", metavar="ENTRY")
]

quarantine = typer.Typer(
    cls=Commands,
    help="List, release or discard rows that admission held back.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (drift, pause, resume):
        app.command()(command)
    app.add_typer(quarantine, name="quarantine")


def drift(detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show the drift state: the tests and features behind it, and when it was computed."""
    with console.client(url, key) as client:
        found: Any = client.drift(detector)
    if as_json:
        console.show_json(found)
        return
    at = found.get("at")
    looked = f"computed {at}" if at else "never computed"
    stale = found.get("stale")
    console.show(f"{detector}: {found['state']}; {looked}{f'; {stale}' if stale else ''}")
    console.show_table(("test", "statistic", "threshold", "alarm"), _tests(found))


def _tests(found: Any) -> list[tuple[Any, ...]]:
    statistics = found.get("statistics") or {}
    tests = [
        (name, one) for name, one in statistics.items() if isinstance(one, dict) and "alarm" in one
    ]
    tests += [(f"feature {one['feature']}", one) for one in statistics.get("features") or ()]
    return [
        (name, f"{one['statistic']:.3g}", f"{one['threshold']:.3g}", "yes" if one["alarm"] else "")
        for name, one in tests
    ]


def pause(detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Pause retraining: no trigger starts one. `retrain` by hand still works."""
    _set_paused(detector, url, key, paused=True, as_json=as_json)


def resume(
    detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Resume retraining: triggers start it again."""
    _set_paused(detector, url, key, paused=False, as_json=as_json)


def _set_paused(detector: str, url: str, key: str | None, *, paused: bool, as_json: bool) -> None:
    with console.client(url, key) as client:
        config = client.change(detector, {"retrain": {"paused": paused}})
        buffered = client.detector(detector).get("buffered")
    if as_json:
        console.show_json(config)
        return
    word = "is paused" if paused else "goes on"
    typer.echo(f"retraining of {detector} {word}; {buffered} vectors are buffered")


@quarantine.command("list")
def held(detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List the quarantine, oldest entry first."""
    with console.client(url, key) as client:
        found: Any = client.quarantine(detector)
    if as_json:
        console.show_json(found)
        return
    columns = ("entry", "kind", "vectors", "since", "reason")
    rows = [
        (one["id"], one["kind"], one["vectors"], one.get("parked_at"), one.get("reason"))
        for one in found
    ]
    console.show_table(columns, rows)


@quarantine.command()
def release(
    detector: Name,
    entry: Entry,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send an entry of the quarantine to the buffer, so that it is learned."""
    _decide(detector, entry, "release", url, key, as_json=as_json)


@quarantine.command()
def discard(
    detector: Name,
    entry: Entry,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
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
        done = client.decide_quarantine(detector, entry, decision)
    if as_json:
        console.show_json(done)
        return
    became = "are buffered" if decision == "release" else "are deleted"
    typer.echo(f"{done['vectors']} vectors of {entry} {became}")
