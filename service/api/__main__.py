"""Start one API process: `python -m service.api`."""

import socket
import sys

from service import crash_points, log
from service.api.server import serve
from service.settings import Settings


def main() -> None:
    """Run as `python -m service.api FD PLACE`.

    FD is the inherited listening socket. PLACE is this process's number among its siblings.
    """
    settings = Settings()
    log.configure(settings, "api")
    crash_points.arm(settings.crash_point)
    serve(settings, socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))


if __name__ == "__main__":
    main()
