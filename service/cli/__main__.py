"""The command line: `anamnesis up` and everything beside it."""

import asyncio
import importlib.metadata
from pathlib import Path
from typing import Annotated

import httpx
import typer

from service import addresses, log
from service.cli import backtest, console, detectors, duty, keys, vectors
from service.cli.options import Key
from service.processes.certificate import own
from service.processes.embedded_store import EmbeddedStore
from service.processes.supervisor import Supervisor
from service.settings import Settings
from service.signatures import Seal
from service.store.connection import unreachable

app = typer.Typer(
    name="anamnesis",
    help="Online anomaly detection that keeps learning what is normal, by generative replay.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
vectors.register(app)
backtest.register(app)
detectors.register(app)
duty.register(app)
app.add_typer(keys.app)

Host = Annotated[str | None, typer.Option(help="Address to bind (127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port to bind (8000); 0 takes a free one.")]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain (PEM): speak HTTPS.")]
TlsKey = Annotated[Path | None, typer.Option(help="Private key (PEM) of that certificate.")]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Let everybody in without API keys, from other machines too."),
]
Workers = Annotated[int | None, typer.Option(help="API processes sharing the port (1).")]
DataDir = Annotated[Path | None, typer.Option(help="Where the embedded store keeps everything.")]


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    insecure: Insecure = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Run everything on this machine: store, API and worker. Ctrl-C stops it, losing nothing."""
    settings = console.settings(
        host=host,
        port=port,
        data_dir=data_dir,
        workers=workers,
        insecure=insecure,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    store = None if settings.store_url() else EmbeddedStore(settings.data_dir)
    _supervise(settings, store, worker=True)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    insecure: Insecure = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Run the API alone, against the store that ANAMNESIS_REDIS_URL names."""
    settings = _with_store(
        console.settings(
            host=host,
            port=port,
            workers=workers,
            insecure=insecure,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    )
    _supervise(settings, None, worker=False)


@app.command()
def worker() -> None:
    """Run a worker alone, against the store that ANAMNESIS_REDIS_URL names."""
    from service.worker.__main__ import main as work

    Seal.of(_with_store(console.settings()))  # before anything runs
    raise typer.Exit(work())


@app.command()
def ready(port: Port = None) -> None:
    """Ask the API process on this machine whether it can serve: exit status 0 if so, else 1."""
    settings = console.settings(port=port)
    scheme = "https" if settings.tls_cert else "http"
    try:
        url = f"{scheme}://127.0.0.1:{settings.port}/readyz"
        answer = httpx.get(url, trust_env=False, verify=own(settings), timeout=3)
    except httpx.HTTPError:
        typer.echo("nothing answers", err=True)
        raise typer.Exit(1) from None
    typer.echo(answer.text)
    raise typer.Exit(int(not answer.is_success))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("demo-output"),
    url: Annotated[
        str | None, typer.Option(help="A running service to use instead of a new one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the training.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the service running afterwards.")
    ] = False,
    key: Key = None,
) -> None:
    """Learn nine handwritten digits one after another, without forgetting the first."""
    from service.cli.demo.run import run

    run(output, url, seed, keep=keep, key=key)


def _with_store(settings: Settings) -> Settings:
    if settings.store_url() is None:
        raise typer.BadParameter("set ANAMNESIS_REDIS_URL, or run `anamnesis up`")
    return settings


def _supervise(settings: Settings, store: EmbeddedStore | None, *, worker: bool) -> None:
    log.configure(settings, "up" if worker else "api")

    def announce(url: str) -> None:
        typer.echo(summary(settings, url, store))

    Supervisor(settings, store=store, worker=worker, announce=announce).run()


def summary(settings: Settings, url: str, store: EmbeddedStore | None) -> str:
    """Return what a person is told once the service answers at `url`."""
    rows = [
        ("API", f"{url}/v1"),
        ("Docs", f"{url}/docs"),
        ("Metrics", f"{url}/metrics"),
    ]
    if httpx.get(f"{url}/", trust_env=False, verify=own(settings)).status_code == httpx.codes.OK:
        # Without a dashboard the root leads to the docs.
        rows.append(("Dashboard", f"{url}/"))
    why = None
    if store is not None:
        rows.append(("Store", f"{store.describe()}, embedded; every write is on disk first"))
        rows.append(("Data", str(store.directory.path)))
    else:
        where = settings.store_url() or ""
        why = asyncio.run(unreachable(where))
        rows.append(("Store", addresses.shown(where) + (f" does not answer: {why}" if why else "")))
    lines = "\n".join(f"  {name:<10} {value}" for name, value in rows)
    state = "waits for its store" if why else "is ready"
    return f"\nanamnesis {_release()} {state} (Ctrl-C stops it)\n\n{lines}\n"


def _release() -> str:
    try:
        return importlib.metadata.version("anamnesis")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def main() -> None:
    """Run the command line; exit statuses are `console.Exit`."""
    with console.exit_codes():
        app()


if __name__ == "__main__":
    main()
