"""Waits for something to happen, as long as a busy machine may take."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil

PATIENCE = 300.0  # s; then it counts as failed

Found = TypeVar("Found")


async def until(check: Callable[[], bool | Awaitable[bool]]) -> float:
    """Wait until `check` holds; return the seconds that took. Fails after `PATIENCE`."""
    began = time.monotonic()
    while True:
        outcome = check()
        if outcome if isinstance(outcome, bool) else await outcome:
            return time.monotonic() - began
        assert time.monotonic() - began < PATIENCE, "waited in vain"
        await asyncio.sleep(0.01)


def wait_for(check: Callable[[], Found], awaited: str = "", *logs: Path) -> Found:
    """Return what `check` returns once that is true; fail with the ends of the logs otherwise."""
    deadline = time.monotonic() + PATIENCE
    while not (result := check()):
        if time.monotonic() > deadline:
            ends = "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs)
            raise AssertionError(f"waited in vain {awaited and f'for {awaited}'}\n{ends}")
        time.sleep(0.02)  # polls, because other processes notify nobody
    return result


def alive(pid: int) -> bool:
    """Return whether a process exists and has not ended; a zombie has ended."""
    try:
        return psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False
