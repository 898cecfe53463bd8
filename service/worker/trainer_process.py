"""The worker's side of the trainer: one child process, whose progress and memory are watched."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from models import TrainingError
from service import log
from service.processes.process_table import processor_seconds, resident_bytes, wants_processor
from service.processes.spawn import Spawn, python
from service.settings import Settings
from service.trainer.messages import Failed, Job, Progress, Ready, Reply, Trained, encode, receive

_log = log.get(__name__)

# Between two checks of memory and silence; at 5 GB/s memory grows by 0.5 GB in between.
_LOOK_SECONDS = 0.1
_START_SECONDS = 60.0  # time to load torch from a cold disk
# Share of one processor; a silent child that sleeps and uses less is idle.
_IDLE = 0.01
# By the clock a training may take this many times its limit, while others use the processors.
_STARVED = 4.0
_KEPT_SHARE = 0.5  # share of its memory limit; a child that holds more between jobs is replaced
_READ_LIMIT = 2**20
_LIKELY_CAUSES = {
    signal.SIGKILL: ", as the system does if memory runs out",
    signal.SIGABRT: ", as libraries in C++ do if memory runs out",
}

Outcome = TypeVar("Outcome")


class Trainer:
    """Trains one job at a time in a child process that is kept running between jobs.

    The child runs at nice 19 in its own process group and ends with its parent. It stays in this
    process's session, since niceness has an effect only within one. `command` is for tests.
    """

    def __init__(self, settings: Settings, command: Sequence[str] | None = None) -> None:
        self._threads = settings.training_threads
        self._memory_bytes = settings.training_memory_bytes
        self._stall_seconds = settings.training_stall_seconds
        self._seconds = settings.training_seconds
        arguments = (str(self._threads), settings.training_device)
        self._command = tuple(command or python("service.trainer", *arguments))
        self._child: asyncio.subprocess.Process | None = None
        self._ready = False

    @property
    def pid(self) -> int | None:
        """The child's process id, None if no child runs."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def warm(self) -> None:
        """Start the child unless it runs. It loads its libraries before a job needs them."""
        if self.pid is not None:
            return
        self._ready = False
        self._child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_READ_LIMIT,
            cwd=_working_directory(),
            **Spawn(nice=19).keywords(),
        )

    async def train(self, job: Job, report: Callable[[Progress], None]) -> bytes:
        """Train `job` and return the new version's artifact. `report` is called with the progress.

        Raises TrainingError if the training fails. Cancelling stops the training at once.
        """
        try:
            await self.warm()
        except OSError as error:  # the system has no free process
            raise TrainingError(f"the trainer cannot start: {error}") from error
        try:
            await self._send(job)
            reply = await self._outcome(report)
        except (EOFError, ConnectionError) as error:
            raise TrainingError(await self._exit_reason()) from error
        except BaseException:
            # The child was stopped, silent, too large or cancelled. It writes nothing but replies,
            # so killing it is safe. Nothing else ends it within a step.
            await self.close()
            raise
        assert self._child is not None
        broken = isinstance(reply, Failed) and reply.broken
        if broken or resident_bytes(self._child.pid) > self._memory_bytes * _KEPT_SHARE:
            await self.close()
        if isinstance(reply, Failed):
            raise TrainingError(reply.reason)
        return reply.artifact

    async def close(self) -> None:
        """Kill the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        await child.wait()

    async def _send(self, job: Job) -> None:
        if not self._ready:
            reply = await self._next_reply(max(self._stall_seconds, _START_SECONDS))
            if isinstance(reply, Failed):
                raise TrainingError(f"the trainer cannot start: {reply.reason}")
            if not isinstance(reply, Ready):
                raise TrainingError(f"the trainer began with {type(reply).__name__}")
            self._ready = True
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(encode(job))
        await self._watched(self._child.stdin.drain(), self._stall_seconds)

    async def _outcome(self, report: Callable[[Progress], None]) -> Trained | Failed:
        """Return the child's last reply. Raises TrainingError if it takes too long.

        On a busy machine a good training may get little of the processor. So it may last until its
        threads have had the time of the limit, or for a few times the limit by the clock.
        """
        assert self._child is not None
        pid, began = self._child.pid, time.monotonic()
        reading = asyncio.create_task(self._last_reply(report))
        spent_before, left = processor_seconds(pid), self._seconds
        try:
            while left > 0:
                await asyncio.wait({reading}, timeout=max(left, _LOOK_SECONDS))
                if reading.done():
                    return reading.result()
                spent = processor_seconds(pid) - spent_before
                lasted = time.monotonic() - began
                left = min(self._seconds - spent / self._threads, _STARVED * self._seconds - lasted)
        finally:
            reading.cancel()
        raise TrainingError(
            f"the training took longer than {self._seconds:g} s, the limit in "
            f"ANAMNESIS_TRAINING_SECONDS: {lasted:.0f} s by the clock, {spent:.0f} s of processor "
            "time"
        )

    async def _last_reply(self, report: Callable[[Progress], None]) -> Trained | Failed:
        while True:
            reply = await self._next_reply(self._stall_seconds)
            if isinstance(reply, Trained | Failed):
                return reply
            if isinstance(reply, Progress):
                report(reply)

    async def _next_reply(self, patience: float) -> Reply:
        assert self._child is not None
        assert self._child.stdout is not None
        return await self._watched(receive(self._child.stdout), patience)

    async def _watched(self, step: Coroutine[Any, Any, Outcome], patience: float) -> Outcome:
        """Return the outcome of `step`, which waits for the child. Watch the child meanwhile.

        On a busy machine a child may get no processor for a long time, and this process may be
        paused, so a clock does not tell whether the child hangs. Instead each look that finds the
        child asleep, or wanting a processor, counts as _LOOK_SECONDS. A child that slept for
        `patience` seconds and used almost no processor time hangs. So does a child that wanted a
        processor for `patience` seconds and used as much processor time without a reply.
        """
        assert self._child is not None
        pid = self._child.pid
        asleep = awake = 0.0
        used_at_start = used_before_sleep = processor_seconds(pid)
        waiting = asyncio.create_task(step)
        try:
            while True:
                await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
                memory = resident_bytes(pid)
                if memory > self._memory_bytes:
                    raise TrainingError(
                        f"the training took {memory} bytes of memory; the limit is "
                        f"{self._memory_bytes}"
                    )
                if waiting.done():
                    return waiting.result()
                if wants_processor(pid):
                    awake += _LOOK_SECONDS
                else:
                    asleep += _LOOK_SECONDS
                used = processor_seconds(pid)
                hangs = awake > patience and used - used_at_start > patience
                if asleep > patience:
                    hangs |= used - used_before_sleep < _IDLE * patience
                    asleep, used_before_sleep = 0.0, used
                if hangs:
                    raise TrainingError(f"no progress for {patience:g} s")
        finally:
            waiting.cancel()

    async def _exit_reason(self) -> str:
        """Reap the child after its pipe broke. Return why it ended."""
        child = self._child
        assert child is not None
        try:
            async with asyncio.timeout(1.0):  # a pipe breaks shortly before its process ends
                code = await child.wait()
        except TimeoutError:
            code = None
        await self.close()
        if code is None:
            return "the trainer closed its pipe"
        _log.warning("the trainer ended by itself", code=code)
        if code < 0:
            ended_by = signal.Signals(-code)
            return f"the trainer was killed by {ended_by.name}{_LIKELY_CAUSES.get(ended_by, '')}"
        return f"the trainer ended with code {code}"


def _working_directory() -> str | None:
    """Return the directory for the child: this process's own, or the root if that was deleted.

    torch does not load in a deleted directory. The child opens no file by a relative name.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        return "/"
    return None
