"""Crash points: named places where a test can make the process die as if by `kill -9`.

A test of crash safety needs a crash at an exact place. `ANAMNESIS_CRASH_POINT` arms a point when
the process starts. Passing a point that is not armed costs one comparison.
"""

import os
import signal
from dataclasses import dataclass


@dataclass(slots=True)
class _Point:
    name: str
    passages_left: int


_armed: _Point | None = None


def arm(point: str | None) -> None:
    """Make the n-th passage of `point`, given as `name:n`, kill this process; None disarms.

    Raises ValueError for anything else.
    """
    global _armed  # noqa: PLW0603 - a process dies as a whole: this is the process's state
    if point is None:
        _armed = None
        return
    name, _, count = point.rpartition(":")
    if not name or not count.isdecimal() or int(count) < 1:
        raise ValueError(f"crash point {point!r} is not of the form name:n with n from 1")
    _armed = _Point(name, int(count))


def passage(name: str) -> None:
    """Pass the point `name`. The process dies if this passage is the armed one."""
    if _armed is None or _armed.name != name:
        return
    _armed.passages_left -= 1
    if _armed.passages_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
