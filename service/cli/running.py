"""The commands that run processes. Imported only when one of them runs."""

import asyncio

import httpx
import typer

from service import addresses, log
from service.certificate import trusts_own_certificate
from service.processes.embedded_store import EmbeddedStore
from service.processes.supervisor import Supervisor
from service.release import release
from service.settings import Settings
from service.signatures import Signer
from service.store.connection import unreachable

_log = log.get(__name__)


def everything(settings: Settings) -> None:
    """Run store, API and worker until a signal. A store that the settings name is not started."""
    from service.worker.webhook import Receiver

    Receiver.of(settings)  # raises BadSettings before anything runs
    store = None if settings.store_url() else EmbeddedStore(settings.data_dir)
    _supervise(settings, store, worker=True)


def api(settings: Settings) -> None:
    """Run the API until a signal."""
    _supervise(_with_store(settings), None, worker=False)


def worker(settings: Settings) -> int:
    """Run a worker until a signal. Return its exit status."""
    from service.worker.__main__ import main
    from service.worker.webhook import Receiver

    Signer.of(_with_store(settings))  # raises BadSettings before anything runs
    Receiver.of(settings)
    log.configure(settings, "worker")
    _warn_of_unknown_settings()
    return main()


def ready(settings: Settings) -> bool:
    """Return whether the API process on this machine can serve. Write its answer to stdout."""
    scheme = "https" if settings.tls_cert else "http"
    try:
        url = f"{scheme}://127.0.0.1:{settings.port}/readyz"
        verify = trusts_own_certificate(settings)
        answer = httpx.get(url, trust_env=False, verify=verify, timeout=3)
    except httpx.HTTPError:
        typer.echo("no API process answers on this machine", err=True)
        return False
    typer.echo(answer.text)
    return answer.is_success


def _with_store(settings: Settings) -> Settings:
    if settings.store_url() is None:
        raise typer.BadParameter("set ANAMNESIS_REDIS_URL, or run `anamnesis up`")
    return settings


def _supervise(settings: Settings, store: EmbeddedStore | None, *, worker: bool) -> None:
    log.configure(settings, "up" if worker else "api")
    _warn_of_unknown_settings()

    def announce(url: str) -> None:
        typer.echo(summary(settings, url, store))

    Supervisor(settings, store=store, worker=worker, announce=announce).run()


def summary(settings: Settings, url: str, store: EmbeddedStore | None) -> str:
    """Return the text to show to a person once the service answers at `url`."""
    rows = [
        ("API", f"{url}/v1"),
        ("Docs", f"{url}/docs"),
        ("Metrics", f"{url}/metrics"),
        ("Dashboard", f"{url}/"),
    ]
    why = None
    if store is not None:
        rows.append(("Store", f"{store.describe()}, embedded; every write is on disk first"))
        rows.append(("Data", str(store.directory.path)))
    else:
        store_url = settings.store_url() or ""
        why = asyncio.run(unreachable(store_url))
        rows.append(
            ("Store", addresses.shown(store_url) + (f" does not answer: {why}" if why else ""))
        )
    lines = "\n".join(f"  {name:<10} {value}" for name, value in rows)
    state = "waits for its store" if why else "is ready"
    return f"\nanamnesis {release('(not installed)')} {state} (Ctrl-C stops it)\n\n{lines}\n"


def _warn_of_unknown_settings() -> None:
    if misspelt := Settings.misspelt():
        _log.warning("unknown settings are ignored", found="; ".join(misspelt))
