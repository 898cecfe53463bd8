"""Child processes that never outlive their parent.

Every child of ours gets a process group of its own, so that Ctrl-C in a terminal reaches the
supervisor alone and it decides the order in which things stop; but it stays in its parent's
session, because Linux schedules sessions as groups and niceness only counts inside one.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

_PR_SET_PDEATHSIG = 1

# Loaded before any fork: between fork and exec a child must not take the loader's lock.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(sig: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask the kernel to send this process `sig` when its parent ends, however it ends.

    The kernel watches the parent's *thread*: start children from a thread that lives as long as
    the process does. `parent` is the process id that must still be the parent; a parent that died
    before the kernel knew ends this process at once. Without effect outside Linux.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(128 + int(sig))


@dataclass(frozen=True, slots=True)
class Spawn:
    """How a child is started: what the operating system needs to know, apart from its command.

    `death_signal` is what it gets when its parent ends; `nice` is added to the parent's niceness;
    `env` replaces the environment; `pass_fds` stay open in the child.
    """

    death_signal: int = signal.SIGKILL
    nice: int = 0
    new_session: bool = False
    env: Mapping[str, str] | None = None
    pass_fds: Sequence[int] = ()

    def options(self) -> dict[str, Any]:
        """Return keyword arguments for `subprocess.Popen` and `asyncio.create_subprocess_exec`."""
        return {
            "env": self.env,
            "pass_fds": tuple(self.pass_fds),
            "start_new_session": self.new_session,
            "process_group": None if self.new_session else 0,
            "preexec_fn": _prepare(self.death_signal, self.nice),
        }


def _prepare(death_signal: int, nice: int) -> Callable[[], None]:
    parent = os.getpid()

    def prepare() -> None:
        # Runs between fork and exec: system calls only.
        die_with_parent(death_signal, parent)
        if nice:
            os.nice(nice)

    return prepare


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module of ours with this Python.

    With `-P` the current directory is not looked into: it may hold a `models`, a `service` or a
    `numpy.py` of somebody else.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


def spawn(
    command: Sequence[str],
    how: Spawn | None = None,
    *,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` as a child that dies with this process; its stdin is empty."""
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        **(how or Spawn()).options(),
    )
