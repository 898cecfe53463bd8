"""Turns signals into bytes on a socket, so that a loop can wait for them."""

import contextlib
import signal
import socket
from collections.abc import Callable, Generator


@contextlib.contextmanager
def wakeups(ask_to_exit: Callable[[], None]) -> Generator[socket.socket, None, None]:
    """Turn SIGTERM, SIGINT and SIGHUP into `ask_to_exit`; any signal makes the socket readable.

    Those that this process was started to ignore, as `nohup` does, stay ignored.
    """
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.settimeout(0)
    before = {
        sig: signal.signal(sig, lambda *_: ask_to_exit())
        for sig in _EXIT_SIGNALS
        if signal.getsignal(sig) is not signal.SIG_IGN
    }
    # Python wakes nobody for a signal that has no handler.
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old)
        for sig, handler in before.items():
            signal.signal(sig, handler)
        reader.close()
        writer.close()


_EXIT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def drain(reader: socket.socket) -> None:
    """Read away what woke us."""
    with contextlib.suppress(BlockingIOError):
        while reader.recv(4096):
            pass
