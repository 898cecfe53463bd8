"""Commands about detectors and their versions."""

from functools import partial
from typing import Annotated, Any

import typer

from service.cli import console
from service.cli.options import DEFAULT_URL, AsJson, Key, Name, Url, Why
from service.counted import counted

Generation = Annotated[
    int | None,
    typer.Option(
        "--if-generation", help="Change nothing unless the detector still has this generation."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (detectors, versions, promote, rollback, revoke, audit, delete):
        app.command()(command)


def detectors(url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List the detectors."""
    with console.client(url, key) as client:
        console.show_listed(client.detectors(), _DETECTORS, as_json=as_json)


def versions(
    detector: Name, url: Url = DEFAULT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """List a detector's versions."""
    with console.client(url, key) as client:
        console.show_listed(client.versions(detector), _VERSIONS, as_json=as_json)


def _weight(name: str, record: Any) -> str | None:
    value = (record.get("weights") or {}).get(name)
    return None if value is None else f"{value:.3f}"


def _reasons(record: Any) -> str | None:
    return "; ".join(map(str, (record.get("gate") or {}).get("reasons") or ())) or None


_DETECTORS: console.Columns = {
    "detector": "name", "version": "champion", "generation": "generation", "buffered": "buffered",
    "learned": "learned", "retraining": "retraining.state", "drift": "drift.state",
}  # fmt: skip
_VERSIONS: console.Columns = {
    "version": "version", "state": "state", "parent": "parent", "strategy": "strategy",
    "w_prev": partial(_weight, "w_prev"), "w_new": partial(_weight, "w_new"), "new": "n_new",
    "reasons": _reasons,
}  # fmt: skip


def promote(
    detector: Name,
    version: Annotated[int, typer.Argument(help="The version to serve.", metavar="VERSION")],
    if_generation: Generation = None,
    why: Why = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion."""
    with console.client(url, key) as client:
        promoted = client.promote(detector, version, if_generation, why=why)
    _show_champion(promoted, detector, as_json=as_json)


def audit(
    detector: Annotated[
        str | None,
        typer.Argument(help="The detector; without it, the API keys.", metavar="[DETECTOR]"),
    ] = None,
    templates: Annotated[
        bool, typer.Option("--templates", help="Show the audit trail of the templates.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every entry's hash against the one before it.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show the changes of a detector, the API keys or the templates: who, what, when and why."""
    from service.domain.audit_chain import WrittenEntry, broken

    with console.client(url, key) as client:
        entries = client.audit(detector, of="templates" if templates else "keys")
    if as_json:
        console.show_json(entries)
    else:
        columns = ("seq", "at", "action", "from", "to", "who", "why", "hash")
        console.show_table(columns, map(_audit_row, entries))
    if verify and (wrong := broken(map(WrittenEntry.of, entries))) is not None:
        console.complain(f"the hash of entry {wrong} does not match the entry before it")
        raise typer.Exit(console.Exit.REFUSED)


def _audit_row(entry: Any) -> tuple[Any, ...]:
    from service.timestamps import rfc3339

    shown = (entry[name] for name in ("from", "to"))
    kind = "key" if "key" in entry["action"] else "config"
    short = [kind if isinstance(value, dict) else value for value in shown]
    at = rfc3339(entry["at"] / 1000)
    return (entry["seq"], at, entry["action"], *short, entry["who"], entry["why"], entry["hash"])


def rollback(
    detector: Name,
    why: Why = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make the champion's parent the champion again."""
    with console.client(url, key) as client:
        status = client.detector(detector)
        champion = status["champion"]
        parent = None if champion is None else client.version(detector, champion)["parent"]
        if parent is None:
            console.complain(f"{detector} has no version before its champion")
            raise typer.Exit(console.Exit.REFUSED)
        # If the champion has moved since it was read, the request is refused.
        promoted = client.promote(detector, parent, status["generation"], why=why)
    _show_champion(promoted, detector, as_json=as_json)


def delete(
    detector: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete a detector with its versions, buffered vectors, incidents and labels."""
    with console.client(url, key) as client:
        if not yes:
            learned = client.detector(detector).get("learned")  # a broken status has none
            whose = "" if learned is None else f", which learned {counted(learned, 'vector')}"
            typer.confirm(
                f"Delete {detector}{whose}? Nothing brings it back",
                abort=True,
                err=True,
            )
        client.delete(detector)
    console.show_answer({"deleted": detector}, f"{detector} is deleted", as_json=as_json)


def _show_champion(answer: Any, detector: str, *, as_json: bool) -> None:
    if as_json:
        console.show_json(answer)
        return
    typer.echo(
        f"{detector} serves version {answer['champion']} (generation {answer['generation']})"
    )
    if effect := answer.get("effect"):
        console.show(effect)


def revoke(
    detector: Name,
    batch: Annotated[
        str | None, typer.Option("--batch", help="Unlearn the batch with this `batch_id`.")
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--sender", help="Unlearn all that the API key with this id sent.")
    ] = None,
    why: Annotated[str, typer.Option(help="The reason, for the audit trail.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done and lost.")
    ] = False,
    without_champion: Annotated[
        bool, typer.Option("--without-champion", help="Serve no version if no clean one is kept.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Unlearn bad data: go back to the last version without it, and learn the rest again."""
    if (batch is None) == (sender is None):
        raise typer.BadParameter("give either --batch or --sender")
    target = {"batch": batch} if sender is None else {"key": sender}
    options = {"why": why, "dry_run": dry_run, "without_champion": without_champion}
    with console.client(url, key) as client:
        revoked: Any = client.revoke(detector, **target, **options)
    if as_json:
        console.show_json(revoked)
        return
    champion, discarded = revoked["champion"], revoked["discarded"]
    served = "no version" if champion is None else f"version {champion}"
    typer.echo(
        f"{'would be done: ' if dry_run else ''}{detector} serves {served}; revoked: "
        + (", ".join(map(str, revoked["versions"])) or "none")
    )
    waiting = sum(discarded[place] for place in ("buffered", "quarantined", "parked"))
    typer.echo(f"discarded before they were learned: {counted(waiting, 'vector')}")
    for what_became, name in (("learned again", "relearned"), ("lost with them", "lost")):
        counts = revoked[name]
        batches = counts["batch_count"]
        senders = f" of {', '.join(counts['senders'])}" if counts["vectors"] else ""
        console.show(
            f"{what_became}: {counted(counts['vectors'], 'vector')} of others, in "
            f"{batches} {'batch' if batches == 1 else 'batches'}{senders}"
        )
