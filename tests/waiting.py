"""Waiting for something to happen, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait until `check` holds, `seconds` at most."""
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)
