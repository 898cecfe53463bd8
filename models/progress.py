"""Work that yields its progress and returns its result at the end."""

from collections.abc import Callable, Generator
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")


def finish(steps: Generator[P, None, R], report: Callable[[P], object] | None = None) -> R:
    """Run `steps` to their end and return their result. `report` gets each progress.

    >>> def counted(n):
    ...     for i in range(n):
    ...         yield (i + 1) / n
    ...     return n
    >>> finish(counted(2), print)
    0.5
    1.0
    2
    """
    while True:
        try:
            progress = next(steps)
        except StopIteration as done:
            return done.value
        if report is not None:
            report(progress)
