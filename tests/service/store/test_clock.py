"""The store's clock, as a process with another clock knows it."""

import time
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service.store import clock
from service.store.clock import StoreClock

pytestmark = pytest.mark.anyio
TWO_DAYS = 2 * 86_400.0


async def test_a_wrong_clock_is_corrected_and_said_once(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process two days ahead reads the store's time, and the log says so once."""
    machine = SimpleNamespace(ahead=TWO_DAYS, later=0.0)
    machine.time = lambda: time.time() + machine.ahead
    machine.monotonic = lambda: time.monotonic() + machine.later
    monkeypatch.setattr(clock, "time", machine)
    read = StoreClock(redis)
    with capture_logs() as logs:
        for _ in range(3):
            assert abs(await read.now() - time.time()) < 5.0
            machine.later += 11.0
        machine.ahead = 0.0
        assert abs(await read.now() - time.time()) < 5.0
    (warning,) = logs
    assert warning["seconds_ahead"] == pytest.approx(TWO_DAYS, abs=5.0)
