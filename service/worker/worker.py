"""The worker: the process in which detectors learn.

A worker looks for a detector that is due, takes its lease, and lets its trainer process do the
work. Any number of workers share the detectors through leases. A worker that dies loses nothing,
and nothing is learned twice: the experience is still in the buffer, and is due at once.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable

from service import log
from service.addresses import shown
from service.pacing import pause
from service.problems import SILENT, StoreUnavailable
from service.settings import Settings
from service.signatures import Signer
from service.store.adapters import Stores
from service.store.connection import Connection, WeakStore, cause, connect, notifications
from service.store.durability import Durability
from service.worker.attempt import attempt
from service.worker.drift_monitor import SECONDS as MONITOR_SECONDS
from service.worker.drift_monitor import Monitor
from service.worker.due_detectors import DueDetectors
from service.worker.janitor import SECONDS as JANITOR_SECONDS
from service.worker.janitor import Janitor
from service.worker.toolbox import Tools
from service.worker.trainer_process import Trainer
from service.worker.webhook import SECONDS as WEBHOOK_SECONDS
from service.worker.webhook import Receiver, Webhook

_log = log.get(__name__)

_BEAT_SECONDS = 2.0
# Bound on one call to the store; a promotion carries an artifact of many megabytes.
CALL_SECONDS = 5.0
_AWAY_SECONDS = 2.0  # between two tries while the store is away; recovery is promised within 5 s
_LISTEN_SECONDS = 5.0  # longer than the pause between two reads of a subscription
_HELP_SHARE = 0.25  # largest share of the time for each task beside the retraining


class Worker:
    """Retrains the detectors that are due, one at a time.

    `trainer` is for tests. By default it is the child process that the settings describe.
    """

    def __init__(
        self, settings: Settings, redis: Connection, url: str, trainer: Trainer | None = None
    ) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.url = url
        stores = Stores(settings, redis)
        trainer = trainer or Trainer(settings)
        self.durability = Durability(allow_weak=settings.allow_weak_store)
        self.tools = Tools(self.id, settings, stores, trainer, Signer.of(settings), self.durability)
        self.janitor = Janitor(settings, stores)
        self.monitor = Monitor(settings, stores)
        receiver = Receiver.of(settings)
        self.webhook = None
        if receiver:
            self.webhook = Webhook(receiver, redis, stores.clock, self.monitor.leases)
        self.due_detectors = DueDetectors(stores, settings.tick_seconds)
        self._exit = asyncio.Event()
        self._writable = True  # false from a refused heartbeat until one is accepted
        self._current: asyncio.Task[bool] | None = None
        self._helpers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Run the worker until it is asked to stop. Raises WeakStore for an unsafe store."""
        try:
            await self.startup()
            await self.main_loop()
        finally:
            await self.shutdown()

    async def startup(self) -> None:
        """Start the trainer, wait for the store, and start the tasks beside the retraining."""
        await self.tools.trainer.warm()
        await self._wait_for_store()
        self._helpers = [
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._repeat(_BEAT_SECONDS, self.beat)),
            asyncio.create_task(self._repeat(JANITOR_SECONDS, self.janitor.tick)),
            asyncio.create_task(self._repeat(MONITOR_SECONDS, self.monitor.tick)),
        ]
        if self.webhook is not None:
            self._helpers.append(
                asyncio.create_task(self._repeat(WEBHOOK_SECONDS, self.webhook.tick))
            )
        _log.info("worker started", worker=self.id)

    async def main_loop(self) -> None:
        """Tick until asked to stop. Wait after a tick that had nothing to do."""
        away = False
        while not self._exit.is_set():
            try:
                await self.durability.check(self.tools.stores.redis)
                worked = await self.tick()
            except WeakStore:  # it was logged
                await self._wait_for_work(_AWAY_SECONDS, wakeable=False)
                continue
            except StoreUnavailable as error:
                self.durability.check_at_once()
                if not away:
                    _log.warning("store away", store=shown(self.url), why=cause(error))
                away = True
                await self._wait_for_work(_AWAY_SECONDS, wakeable=False)
                continue
            except Exception:  # noqa: BLE001 - if the worker ended, it would be restarted and meet the same error
                _log.exception("looking for a detector to retrain failed")
                await self._wait_for_work(_AWAY_SECONDS, wakeable=False)
                continue
            if away:
                _log.info("store back")
                away = False
            if not worked:
                await self._wait_for_work(self.due_detectors.pause)

    async def tick(self) -> bool:
        """Retrain the due detector that needs it most. Return False if none was retrained."""
        for detector, reason in await self.due_detectors.most_urgent_first():
            if self._exit.is_set():
                break
            self._current = asyncio.create_task(attempt(self.tools, detector, reason))
            try:
                settled = await self._current
            except asyncio.CancelledError:
                if not self._exit.is_set():
                    raise
                return True
            except StoreUnavailable:
                raise
            except Exception:  # noqa: BLE001 - an error of one detector must not stop the others
                _log.exception("a retraining failed unexpectedly", detector=detector.name)
                settled = False
            finally:
                self._current = None
            if settled:
                self.due_detectors.look_again()
                return True
            self.due_detectors.retry_later(detector.name)
        return False

    async def shutdown(self) -> None:
        """End the tasks and the trainer. An experience that was being learned stays buffered."""
        for task in self._helpers:
            task.cancel()
        await asyncio.gather(*self._helpers, return_exceptions=True)
        await self.tools.trainer.close()
        if self.webhook is not None:
            await self.webhook.close()
        with contextlib.suppress(StoreUnavailable):
            await self.monitor.close()
            await self.tools.stores.leases.leave(self.id)
        _log.info("worker stopped", worker=self.id)

    def stop(self) -> None:
        """Ask the worker to stop. The present training gets the time that the settings allow.

        At a second call, or after that time, the training is given up. Another worker repeats it.
        """
        seconds = 0.0 if self._exit.is_set() else self.tools.settings.training_drain_seconds
        self._exit.set()
        self.due_detectors.woken.set()
        if self._current is None:
            return
        if seconds:
            _log.info("the worker ends after its training", worker=self.id, at_most_seconds=seconds)
            asyncio.get_running_loop().call_later(seconds, self._current.cancel)
        else:
            self._current.cancel()

    async def beat(self) -> None:
        """Report to the store that this worker is alive. Log once that the store takes no writes.

        A store that is out of memory or read-only answers reads, so the main loop does not see it.
        """
        try:
            await self.tools.stores.leases.beat(self.id)
        except StoreUnavailable as error:
            if self._writable and error.detail != SILENT:
                self._writable = False
                _log.warning("store refuses writes", store=shown(self.url), why=cause(error))
            raise
        if not self._writable:
            self._writable = True
            _log.info("store accepts writes again")

    async def _wait_for_work(self, seconds: float, *, wakeable: bool = True) -> None:
        """Wait for a notification, at most `seconds`; without `wakeable` only for the exit."""
        waited_for = self.due_detectors.woken if wakeable else self._exit
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waited_for.wait(), seconds)

    async def _listen(self) -> None:
        """Wake the main loop at every notification. Reconnect if the connection breaks."""
        while True:
            with contextlib.suppress(StoreUnavailable):  # polling reports that the store is away
                # A subscription occupies its connection, so it has one of its own.
                async with await connect(self.url, deadline=_LISTEN_SECONDS) as redis:
                    async for name in notifications(redis):
                        self.due_detectors.changed(name)
            await asyncio.sleep(_AWAY_SECONDS)

    async def _repeat(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        """Run `action` again and again. An error is logged, and the next run tries again."""
        while True:
            began = time.monotonic()
            # An error of such a task must not end the learning. The main loop reports that the
            # store is away.
            task = getattr(action, "__qualname__", action)
            with log.tolerated(
                _log,
                "a task beside retraining failed; it is tried again",
                StoreUnavailable,
                task=task,
            ):
                await action()
            took = time.monotonic() - began
            await asyncio.sleep(pause(took, _HELP_SHARE, seconds))

    async def _wait_for_store(self) -> None:
        """Wait until the store answers. Raises WeakStore if it could lose acknowledged writes."""
        logged = False
        while not self._exit.is_set():
            try:
                await self.durability.check(self.tools.stores.redis)
            except StoreUnavailable as error:
                if not logged:
                    _log.warning("waiting for the store", store=shown(self.url), why=cause(error))
                logged = True
                await self._wait_for_work(_AWAY_SECONDS, wakeable=False)
            else:
                return
