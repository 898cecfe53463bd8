"""The command line: `anamnesis up` and all other commands."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli import (
    backtest,
    console,
    detectors,
    drift_and_quarantine,
    keys,
    on_call,
    vectors,
    watch,
)
from service.cli.options import Commands, Key
from service.release import release

app = typer.Typer(
    name="anamnesis",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes and colours would double the time that `--help` takes
    context_settings={"help_option_names": ["-h", "--help"]},
)
vectors.register(app)
watch.register(app)
backtest.register(app)
detectors.register(app)
on_call.register(app)
drift_and_quarantine.register(app)
app.add_typer(keys.app)

Host = Annotated[str | None, typer.Option(help="Address to bind (127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port to bind (8000); 0 takes a free one.")]
ServedPort = Annotated[int | None, typer.Option(help="Port of the API (8000).")]
TlsCert = Annotated[Path | None, typer.Option(help="Certificate chain (PEM): speak HTTPS.")]
TlsKey = Annotated[Path | None, typer.Option(help="Private key (PEM) of that certificate.")]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure", help="Without API keys, allow requests from other machines too."),
]
Workers = Annotated[int | None, typer.Option(help="API processes sharing the port (1).")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded store.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"anamnesis {release('(not installed)')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the release.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Online anomaly detection that keeps learning what is normal, by generative replay."""


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
    """Run store, API and worker on this machine. Ctrl-C stops them and loses nothing."""
    from service.cli import running

    settings = console.settings(
        host=host,
        port=port,
        data_dir=data_dir,
        workers=workers,
        insecure=insecure,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    running.everything(settings)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    insecure: Insecure = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Run only the API, with the store that ANAMNESIS_REDIS_URL names."""
    from service.cli import running

    settings = console.settings(
        host=host, port=port, workers=workers, insecure=insecure, tls_cert=tls_cert, tls_key=tls_key
    )
    running.api(settings)


@app.command()
def worker() -> None:
    """Run only a worker, with the store that ANAMNESIS_REDIS_URL names."""
    from service.cli import running

    raise typer.Exit(running.worker(console.settings()))


@app.command()
def ready(port: ServedPort = None) -> None:
    """Ask whether the API on this machine can serve. The exit status is 0 if it can, else 1."""
    from service.cli import running

    raise typer.Exit(int(not running.ready(console.settings(port=port))))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo-output"),
    url: Annotated[
        str | None, typer.Option(help="URL of a running service to use instead of a new one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the training.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the service running afterwards.")
    ] = False,
    key: Key = None,
) -> None:
    """Learn nine handwritten digits, one after another, without forgetting the first one."""
    from service.cli.demo.run import run

    run(output, url, seed, keep=keep, key=key)


def main() -> None:
    """Run the command line. `console.Exit` lists the exit statuses."""
    console.hold_streams()
    with console.exit_codes():
        app()


if __name__ == "__main__":
    main()
