"""Log lines have colours only in terminals, and tolerated errors are logged."""

import logging
import sys

import pytest
import structlog

from service import log
from service.settings import Settings


@pytest.fixture(autouse=True)
def as_before():
    """Restore the logging of the other tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("terminal", [True, False])
def test_colours_are_for_terminals(capsys, monkeypatch, terminal):
    """Output to a file or a pipe has no escape codes."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    log.configure(Settings(log_format="console"), "up")
    log.get("service.test").warning("something happened", why="a reason")
    line = capsys.readouterr().err
    assert "something happened" in line
    assert ("\x1b" in line) is terminal


def test_a_tolerated_error_is_logged_and_does_not_spread(capsys):
    """An error is logged with its event and traceback, one of a silent type is not logged."""
    log.configure(Settings(log_format="json"), "api")
    logger = log.get("service.test")
    with log.tolerated(logger, "reading failed", KeyError, detector="pump"):
        raise ValueError("a number")
    with log.tolerated(logger, "reading failed", KeyError):
        raise KeyError("a name")
    (line,) = capsys.readouterr().err.splitlines()
    assert '"event": "reading failed"' in line
    assert '"detector": "pump"' in line
    assert "ValueError: a number" in line
