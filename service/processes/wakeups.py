"""Turns signals into bytes on a socket, so that a loop can wait for them."""

import contextlib
import signal
import socket
from collections.abc import Callable, Generator


@contextlib.contextmanager
def wakeups(ask_to_exit: Callable[[], None]) -> Generator[socket.socket, None, None]:
    """Call `ask_to_exit` at SIGTERM, SIGINT or SIGHUP. Any signal makes the socket readable.

    Signals that this process was started to ignore, for example by `nohup`, stay ignored.
    """
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.settimeout(0)
    before = {
        sig: signal.signal(sig, lambda *_: ask_to_exit())
        for sig in _EXIT_SIGNALS
        if signal.getsignal(sig) is not signal.SIG_IGN
    }
    # Python writes to the socket only for signals with a handler.
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
    """Read all bytes from the socket, so that it can wake the loop again."""
    with contextlib.suppress(BlockingIOError):
        while reader.recv(4096):
            pass
