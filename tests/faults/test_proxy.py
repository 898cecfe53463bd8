"""The proxy between a service and its store."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from tests.faults.proxy import proxied

pytestmark = pytest.mark.anyio


# With fewer turns of the loop asyncio has not made the connection yet.
@pytest.mark.parametrize("turns", range(3, 8))
async def test_a_connection_that_is_being_made_is_dropped_at_the_end(
    tmp_path: Path, turns: int
) -> None:
    """At the end no connection stays open, even if the proxy has not reached the store yet."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as upstream, socket.socket(socket.AF_UNIX) as client:
        upstream.bind(str(tmp_path / "store"))
        upstream.listen()
        async with proxied(tmp_path / "proxy", tmp_path / "store"):
            client.connect(str(tmp_path / "proxy"))
            client.settimeout(0)
            for _ in range(turns):
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            # The listener may have closed before it accepted the connection.
            with contextlib.suppress(ConnectionError):
                assert await loop.sock_recv(client, 1) == b""
