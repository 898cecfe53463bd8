"""Child processes that never outlive their parent.

Every child gets a process group of its own. So Ctrl-C in a terminal reaches only the supervisor,
which stops the children in the right order. A child stays in its parent's session, because Linux
schedules sessions as groups, and niceness has an effect only within a session.
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
_PRIVATE = 0o077  # no other user may read what a child writes

# Imported before any fork: between fork and exec a child must not take the lock for imports.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(sig: int, parent: int) -> None:
    """Ask the kernel to send this process `sig` when its parent ends, for whatever reason.

    The kernel watches the parent's *thread*. So start children from a thread that lives as long as
    the process. `parent` is the expected process id of the parent. If the parent has ended
    already, this process ends at once. Outside Linux this has no effect.
    """
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + int(sig))


@dataclass(frozen=True, slots=True)
class Spawn:
    """How to start a child, except for its command.

    The child gets `death_signal` when its parent ends. `nice` is added to the parent's niceness.
    `env` replaces the environment. The file descriptors `pass_fds` stay open in the child.
    """

    death_signal: int = signal.SIGKILL
    nice: int = 0
    new_session: bool = False
    env: Mapping[str, str] | None = None
    pass_fds: Sequence[int] = ()

    def keywords(self) -> dict[str, Any]:
        """Return keyword arguments for `subprocess.Popen` and `asyncio.create_subprocess_exec`."""
        return {
            "env": self.env,
            "pass_fds": tuple(self.pass_fds),
            "start_new_session": self.new_session,
            "process_group": None if self.new_session else 0,
            "preexec_fn": _before_exec(self.death_signal, self.nice),
            "umask": _PRIVATE,
        }


def _before_exec(death_signal: int, nice: int) -> Callable[[], None]:
    parent = os.getpid()

    def prepare() -> None:
        # This runs between fork and exec, where only system calls are safe.
        die_with_parent(death_signal, parent)
        if nice:
            os.nice(nice)

    return prepare


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs one of our modules with this Python.

    With `-P` Python imports nothing from the current directory. A user's directory may have its
    own `models`, `service` or `numpy.py`.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


def spawn(
    command: Sequence[str],
    options: Spawn | None = None,
    *,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` as a child that ends with this process. Its stdin is empty."""
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        **(options or Spawn()).keywords(),
    )
