"""The command line: `anamnesis`, or `python -m anamnesis`."""

import signal


def main() -> None:
    """Run the command line. An interrupt while it is loaded ends it without a traceback."""
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from service.cli.__main__ import main as run

    signal.signal(signal.SIGINT, interrupted)
    run()


if __name__ == "__main__":
    main()
