"""One API process: uvicorn on a listening socket that its parent opened and all siblings share."""

import contextlib
import signal
import socket
import sys
from collections.abc import Generator

import uvicorn

from service import crash, log
from service.settings import Settings


class Server(uvicorn.Server):
    """uvicorn, ending with status 0 once it has drained.

    uvicorn would raise the signal anew after draining; a supervisor (ours, systemd's, an
    orchestrator's) would read that as a crash.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Let SIGTERM and SIGINT ask for a drain, and a second SIGINT for an end without one."""
        before = {
            sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve the API on `listener` until a signal asks for a drain.

    A drain closes the listener, lets the requests in flight finish for `drain_seconds`, and
    closes idle connections at once.
    """
    # The application reads where the metrics go when it is first imported.
    from service.app import create_app

    config = uvicorn.Config(
        create_app(settings),
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Nobody in front of us is trusted to name the client.
        proxy_headers=False,
        # Longer than a load balancer keeps its idle connections: the other side closes first.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    Server(config).run(sockets=[listener])


def main() -> None:
    """Run as `python -m service.server FD`: FD is the inherited listening socket."""
    settings = Settings()
    log.configure(settings, "api")
    crash.arm(settings.crash_point)
    serve(settings, socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
