"""A supervised child process: it is started, restarted when it ends, and stopped."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from service import log
from service.processes import spawn

_log = log.get(__name__)

# For API processes. Their matrices are small, so a linear algebra library needs one thread. Further
# threads would use cores while they wait, and a training and other children need those cores.
# By default the C library gives each thread a memory arena of its own. Several threads load
# champions. The memory of an unloaded champion would be free only for the thread that loaded it,
# and the process would grow. The libraries read these variables when they are loaded, so a process
# cannot set them for itself.
API_VARIABLES = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
# The pauses before the first, second, ... restart in a row.
_PAUSES_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0)
_STEADY_SECONDS = 30.0  # after a child has lived this long, its next restart counts as the first


class Child:
    """One process that must always run. It is restarted when it ends."""

    def __init__(
        self, name: str, command: Sequence[str], spawn_options: Callable[[], spawn.Spawn]
    ) -> None:
        self.name = name
        self.command = command
        self.spawn_options = spawn_options
        self.running: subprocess.Popen[bytes] | None = None
        self.restarts = Restarts()

    def start(self) -> int:
        """Start the process and return its id."""
        self.running = spawn.spawn(self.command, self.spawn_options())
        self.restarts.started()
        return self.running.pid

    def tick(self) -> int | None:
        """Start the process again if it has ended and its pause is over.

        Returns the id of the process if it has ended since the last call, else None.
        """
        ended = None
        if self.running is not None and self.running.poll() is not None:
            ended = self.running.pid
            pause = self.restarts.ended()
            _log.warning(
                "child ended", child=self.name, pid=ended, status=self.running.returncode,
                restart_in=pause,
            )  # fmt: skip
            self.running = None
        if self.running is None and self.restarts.due():
            try:
                _log.info("child restarted", child=self.name, pid=self.start())
            except OSError as error:  # the system has no free process or memory now
                pause = self.restarts.ended()
                _log.warning(
                    "child not restarted", child=self.name, restart_in=pause, why=str(error)
                )
        return ended

    def stop(self, deadline: float) -> None:
        """Ask the process to end. Kill it at `deadline` (monotonic seconds)."""
        self.ask_to_end()
        self.wait(deadline)

    def ask_to_end(self) -> None:
        """Send the signal that asks the process to end."""
        if self.running is not None:
            self.running.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Wait until the process has ended. Kill it at `deadline` (monotonic seconds)."""
        if self.running is None:
            return
        try:
            self.running.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.warning("child killed", child=self.name, pid=self.running.pid)
            self.running.kill()
            self.running.wait()
        self.running = None


class Restarts:
    """Decides when to restart a process: after a short pause, which grows with each restart."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.in_a_row = 0
        self._since = clock()
        self._next = 0.0

    def started(self) -> None:
        """Note a start."""
        self._since = self.clock()

    def ended(self) -> float:
        """Note an end. Return the pause before the next start, in seconds."""
        if self.clock() - self._since >= _STEADY_SECONDS:
            self.in_a_row = 0
        pause = _PAUSES_SECONDS[min(self.in_a_row, len(_PAUSES_SECONDS) - 1)]
        self.in_a_row += 1
        self._next = self.clock() + pause
        return pause

    def due(self) -> bool:
        """Return whether the pause is over."""
        return self.clock() >= self._next
