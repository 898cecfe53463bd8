"""Commands about API keys. They use the store directly, so that the first key can be made."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from service.cli import console
from service.cli.options import AsJson
from service.domain.scope import LEAST_BODY_BYTES, Scope
from service.timestamps import rfc3339

if TYPE_CHECKING:
    from service.domain.api_key import Grant
    from service.settings import Settings
    from service.store.api_keys import ApiKeys

T = TypeVar("T")

_WHO = "command line"  # the sender in the audit trail, since this command needs no API key

DataDir = Annotated[
    Path | None, typer.Option(help="Where the embedded store is, without ANAMNESIS_REDIS_URL.")
]

app = typer.Typer(name="keys", help="Make, list and revoke API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.", metavar="NAME")],
    scope: Annotated[list[Scope], typer.Option(help="A scope of the key; may be repeated.")],
    detector: Annotated[
        list[str] | None, typer.Option(help="A detector it covers (all); may be repeated.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Most requests a second, for each API process.")
    ] = None,
    max_body_bytes: Annotated[
        int | None, typer.Option(min=LEAST_BODY_BYTES, help="Largest body of a request.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and write it to stdout. It is shown only now, since only its hash is stored."""
    from service.domain.api_key import Grant, describe, new_secret
    from service.domain.detector import NAME

    for allowed in detector or ():
        if not NAME.fullmatch(allowed):
            raise typer.BadParameter(f"--detector: a detector's name matches {NAME.pattern}")
    secret = new_secret()
    grant = Grant.of(
        secret.encode(),
        name,
        frozenset(scope),
        detectors=frozenset(detector) if detector else None,
        requests_per_second=rate,
        max_body_bytes=max_body_bytes,
    )

    async def create(keys: "ApiKeys") -> "tuple[Grant, bool]":
        created = await keys.create(grant, who=_WHO)
        return created, len((await keys.read())[1]) == 1

    created, alone = _with_keys(data_dir, create)
    if as_json:
        console.show_json({"key": secret, **describe(created)})
        return
    if alone and console.settings(data_dir=data_dir).admin_key_file is None:
        console.complain("this is the only key: from now on every request needs a key")
    console.complain(f"made key {created.id}. It is shown only now:")
    typer.echo(secret)


@app.command(name="list")
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the keys and what each allows."""
    from service.domain.api_key import describe

    _, grants = _with_keys(data_dir, lambda keys: keys.read())
    if as_json:
        console.show_json([describe(grant) for grant in grants])
        return
    columns = ("id", "name", "scopes", "detectors", "requests/s", "created")
    console.show_table(columns, map(_row, grants))


def _row(grant: "Grant") -> tuple[Any, ...]:
    return (
        grant.id,
        grant.name,
        " ".join(sorted(grant.scopes)),
        "all" if grant.detectors is None else " ".join(sorted(grant.detectors)),
        grant.requests_per_second,
        rfc3339(None if grant.created is None else grant.created / 1000),
    )


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as listed.", metavar="ID")],
    data_dir: DataDir = None,
) -> None:
    """Revoke a key. Within two seconds every process refuses it."""
    _with_keys(data_dir, lambda keys: keys.revoke(key, who=_WHO))
    typer.echo(f"revoked {key}")


def _with_keys(data_dir: Path | None, work: "Callable[[ApiKeys], Awaitable[T]]") -> T:
    """Run `work` on the API keys of the store that the settings name. Return its result."""
    import asyncio

    from service.addresses import shown
    from service.problems import Problem, StoreUnavailable
    from service.store.adapters import Stores
    from service.store.connection import cause, connect

    settings = console.settings(data_dir=data_dir)

    async def done(url: str) -> T:
        async with await connect(url) as redis:
            return await work(Stores(settings, redis).api_keys)

    with _store(settings) as url:
        try:
            return asyncio.run(done(url))
        except StoreUnavailable as error:
            console.complain(f"the store at {shown(url)} does not answer: {cause(error)}")
            raise typer.Exit(console.Exit.UNREACHABLE) from None
        except Problem as problem:
            console.complain(problem.detail)
            raise typer.Exit(console.Exit.REFUSED) from None


@contextlib.contextmanager
def _store(settings: "Settings") -> Iterator[str]:
    """Yield the URL of the store. An embedded store that does not run is started for this time."""
    from service.processes.data_directory import DirectoryInUse, address, socket_path
    from service.processes.embedded_store import EmbeddedStore

    url = settings.store_url()
    if url is not None:
        yield url
        return
    store = EmbeddedStore(settings.data_dir)
    try:
        store.start()
    except DirectoryInUse:
        yield address(socket_path(store.directory.path))
        return
    path = store.directory.path
    console.complain(f"no service uses {path} now (--data-dir names another data directory)")
    try:
        yield store.url
    finally:
        store.stop()
