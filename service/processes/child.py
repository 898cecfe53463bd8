"""A supervised child: started, watched, started again with patience, stopped."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence

from service import log
from service.processes import spawn

_logger = log.get(__name__)

# For children that answer: the matrices of one turn are small, and the threads of a linear algebra
# library spin while they wait, on cores that a training and the other children need. These names
# are read when numpy is loaded, so a process cannot set them for itself.
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
_PATIENCE_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0)  # before the first, second, ... restart in a row
_STEADY_SECONDS = 30.0  # a child that lived this long starts the count afresh


class Child:
    """One process that is to be running, whatever happens to it."""

    def __init__(self, name: str, command: Sequence[str], how: Callable[[], spawn.Spawn]) -> None:
        self.name = name
        self.command = command
        self.how = how
        self.running: subprocess.Popen[bytes] | None = None
        self.restarts = Restarts()

    def start(self) -> int:
        """Start the process and return its id."""
        self.running = spawn.spawn(self.command, self.how())
        self.restarts.started()
        return self.running.pid

    def tick(self) -> int | None:
        """Start the process again when it has ended and its pause is over.

        Returns the id of a process seen to have ended just now.
        """
        ended = None
        if self.running is not None and self.running.poll() is not None:
            ended = self.running.pid
            pause = self.restarts.ended()
            _logger.warning(
                "child ended", child=self.name, pid=ended, status=self.running.returncode,
                restart_in=pause,
            )  # fmt: skip
            self.running = None
        if self.running is None and self.restarts.due():
            try:
                _logger.info("child restarted", child=self.name, pid=self.start())
            except OSError as error:  # no process or no memory to be had now
                pause = self.restarts.ended()
                _logger.warning(
                    "child not restarted", child=self.name, restart_in=pause, why=str(error)
                )
        return ended

    def stop(self, deadline: float) -> None:
        """Ask the process to end; kill it at `deadline` (monotonic seconds)."""
        self.ask()
        self.wait(deadline)

    def ask(self) -> None:
        """Send the polite signal."""
        if self.running is not None:
            self.running.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Wait for the end; kill the process at `deadline` (monotonic seconds)."""
        if self.running is None:
            return
        try:
            self.running.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _logger.warning("child killed", child=self.name, pid=self.running.pid)
            self.running.kill()
            self.running.wait()
        self.running = None


class Restarts:
    """When to start again what keeps ending: at first at once, then with growing pauses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.in_a_row = 0
        self._since = clock()
        self._next = 0.0

    def started(self) -> None:
        """Note a start."""
        self._since = self.clock()

    def ended(self) -> float:
        """Note an end; return the pause, in seconds, before the next start."""
        if self.clock() - self._since >= _STEADY_SECONDS:
            self.in_a_row = 0
        pause = _PATIENCE_SECONDS[min(self.in_a_row, len(_PATIENCE_SECONDS) - 1)]
        self.in_a_row += 1
        self._next = self.clock() + pause
        return pause

    def due(self) -> bool:
        """Return whether the pause is over."""
        return self.clock() >= self._next
