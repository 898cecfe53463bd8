"""The supervisor of `anamnesis up` and `anamnesis api`: it starts, watches and stops processes.

`run` is its whole life: startup, ticks until a signal, shutdown. It owns what the children share:
the listening socket, the folder of their metrics, the embedded store.
"""

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx

from service import log
from service.addresses import shown
from service.certificate import check_certificate, trusts_own_certificate
from service.domain.api_key import keys_in_files
from service.problems import StoreUnavailable
from service.processes import spawn
from service.processes.child import API_VARIABLES, Child
from service.processes.embedded_store import EmbeddedStore
from service.processes.metrics_folder import MetricsFolder
from service.processes.store_keeper import StoreKeeper
from service.processes.training_device import unusable_device
from service.processes.wakeups import drain, wakeups
from service.settings import Settings, is_loopback
from service.signatures import Signer
from service.store.api_keys import count
from service.store.connection import refused

_log = log.get(__name__)

# On a busy machine loading takes minutes. A child that ends is noticed at once.
_STARTUP_SECONDS = 600.0
# A restart is at most this late. A child that ends wakes the loop at once.
_TICK_SECONDS = 0.1
_WORKER_STOP_SECONDS = 15.0
_BACKLOG = 2048
_PROMETHEUS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


class StartupFailed(Exception):  # noqa: N818 - it states what happened
    """The service did not start. The message says why."""


class Supervisor:
    """Runs API processes on one socket, and a worker and an embedded store if asked to.

    `store` is the embedded store to run, None if `settings.redis_url` names one. `announce` is
    called with the service's URL once the service answers.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: EmbeddedStore | None,
        worker: bool,
        announce: Callable[[str], None],
    ) -> None:
        self.store = store
        if store is not None:
            inside = store.directory.path
            folders = {
                "metrics_dir": (settings.metrics_dir or inside / "metrics").absolute(),
                "cache_dir": (settings.cache_dir or inside / "champions").absolute(),
            }
            settings = settings.model_copy(update={"redis_url": store.url, **folders})
        self.settings = settings
        self.announce = announce
        self.should_exit = False
        self.listener: socket.socket | None = None
        self.metrics: MetricsFolder | None = None
        self.keeper = StoreKeeper(store) if store else None
        self.api: list[Child] = []
        self.worker = (
            Child("worker", spawn.python("service.worker"), self._spawn) if worker else None
        )

    # Life

    def run(self) -> None:
        """Start everything, keep it running until SIGTERM or Ctrl-C, then stop it in order.

        Raises StartupFailed or StoreFailed if the service cannot start.
        """
        with wakeups(self._ask_to_exit) as signals:
            try:
                self.startup()
                while not self.should_exit:
                    select.select([signals], [], [], _TICK_SECONDS)
                    drain(signals)
                    self.tick()
            finally:
                self.shutdown()

    def startup(self) -> None:
        """Bind the port, start the store, then the rest. Announce the service once it answers."""
        # Settings, port and directory come first, so that errors in them show before any process
        # runs.
        self._refuse_bad_files()
        self._refuse_unusable_device()
        self.listener = _bind(self.settings.host, self.settings.port)
        if self.store is not None:
            self.store.start()
        self._refuse_weak_store()
        self._refuse_open_access()
        self.metrics = MetricsFolder(self.settings.metrics_dir)
        socket_number = str(self.listener.fileno())
        self.api = [
            Child(f"api-{n}", spawn.python("service.api", socket_number, str(n)), self._spawn_api)
            for n in range(self.settings.workers)
        ]
        for child in self.children():
            child.start()
        self._wait_until_ready()
        if not self.should_exit:
            with contextlib.suppress(OSError):  # nobody reads the output, or its disk is full
                self.announce(self.url)

    def _refuse_bad_files(self) -> None:
        """Raise BadSettings if a file of keys or certificates cannot be used."""
        keys_in_files(self.settings)
        Signer.of(self.settings)
        check_certificate(self.settings)

    def _refuse_unusable_device(self) -> None:
        """Raise StartupFailed if the worker could train nothing."""
        if self.worker is not None and (why := unusable_device(self.settings)) is not None:
            raise StartupFailed(why)

    def _refuse_weak_store(self) -> None:
        """Raise StartupFailed if the store could lose acknowledged writes."""
        url, allowed = self.settings.store_url(), self.settings.allow_weak_store
        if self.store is None and url is not None:
            why = asyncio.run(refused(url, allow_weak=allowed))
            if why is not None:
                raise StartupFailed(f"the store at {shown(url)} is refused. {why}")

    def _refuse_open_access(self) -> None:
        """Raise StartupFailed if other machines could reach a service without API keys."""
        settings = self.settings
        if is_loopback(settings.host) or settings.insecure or keys_in_files(settings):
            return
        url = settings.store_url()
        assert url is not None
        # A store that does not answer may hold keys. Until it is read, every request is refused.
        with contextlib.suppress(StoreUnavailable):
            if not asyncio.run(count(url)):
                raise StartupFailed(
                    f"there are no API keys, and {settings.host} can be reached from elsewhere: "
                    "make one with `anamnesis keys create`, name a file with one in "
                    "ANAMNESIS_ADMIN_KEY_FILE, or give --insecure"
                )

    def tick(self) -> None:
        """Check every child once, and restart those that have ended."""
        if self.keeper is not None:
            self.keeper.tick()
        for child in self.children():
            if child.tick() is not None and child in self.api and self.metrics is not None:
                self.metrics.ended(self.api.index(child))

    def shutdown(self) -> None:
        """Drain the API, let the worker finish its step, then stop the store."""
        if self.listener is not None:
            # The children close their copies when they drain. Then connections are refused.
            self.listener.close()
        for child in self.api:
            child.ask_to_end()
        deadline = time.monotonic() + self.settings.drain_seconds + 3.0
        for child in self.api:
            child.wait(deadline)
        if self.worker is not None:
            self.worker.stop(time.monotonic() + _WORKER_STOP_SECONDS)
        if self.store is not None:
            self.store.stop()
        if self.metrics is not None:
            self.metrics.close()

    # Parts

    def children(self) -> list[Child]:
        """Return the children except the store."""
        return [*self.api, *([self.worker] if self.worker else [])]

    @property
    def url(self) -> str:
        """The URL for clients on this machine."""
        assert self.listener is not None
        host, port = self.listener.getsockname()[:2]
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
        host = anywhere.get(host, host)
        scheme = "https" if self.settings.tls_cert else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def _ask_to_exit(self) -> None:
        self.should_exit = True

    def _spawn(self, **more: str) -> spawn.Spawn:
        folder = self.metrics.path if self.metrics else None
        metrics_dir = str(folder or "")  # an empty variable counts as unset
        env = self.settings.environment(ANAMNESIS_METRICS_DIR=metrics_dir, **more)
        # With one of these variables prometheus_client would map files.
        return spawn.Spawn(env={k: v for k, v in env.items() if k not in _PROMETHEUS_VARIABLES})

    def _spawn_api(self) -> spawn.Spawn:
        assert self.listener is not None
        return replace(self._spawn(**API_VARIABLES), pass_fds=(self.listener.fileno(),))

    def _wait_until_ready(self) -> None:
        # A store elsewhere may start later. Until then it is enough that the API answers.
        path = "/readyz" if self.store else "/healthz"
        until = time.monotonic() + _STARTUP_SECONDS
        verify = trusts_own_certificate(self.settings)
        options: Any = {"timeout": 1.0, "trust_env": False, "verify": verify}
        with httpx.Client(base_url=self.url, **options) as client:
            while not self.should_exit:
                self._check_children()
                with contextlib.suppress(httpx.TransportError):
                    if client.get(path).status_code == httpx.codes.OK:
                        return
                if time.monotonic() > until:
                    raise StartupFailed(f"the API was not ready within {_STARTUP_SECONDS:g} s")
                time.sleep(0.02)

    def _check_children(self) -> None:
        """Raise StartupFailed if a child has ended."""
        for child in self.children():
            if child.running is not None and child.running.poll() is not None:
                raise StartupFailed(
                    f"{child.name} ended with status {child.running.returncode} "
                    "while starting; its last lines are above"
                )


def _bind(host: str, port: int) -> socket.socket:
    with contextlib.ExitStack() as on_failure:
        try:
            family, kind, proto, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = on_failure.enter_context(socket.socket(family, kind, proto))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise StartupFailed(
                f"cannot listen on {host}:{port} (ANAMNESIS_HOST and ANAMNESIS_PORT): "
                f"{error.strerror}"
            ) from None
        except ValueError:
            raise StartupFailed(f"ANAMNESIS_HOST: {host!r} is not the name of a host") from None
        on_failure.pop_all()
    return listener
