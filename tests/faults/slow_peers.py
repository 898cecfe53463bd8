"""Clients that send too slowly, in a process of their own, so that they delay no other client.

`python -m tests.faults.slow_peers PORT PEERS` prints the seconds until the service had closed all.
"""

import asyncio
import contextlib
import itertools
import sys
import time

from tests.waiting import PATIENCE

_HEAD = (
    b"POST /v1/detectors/pump/score HTTP/1.1\r\n"
    b"host: localhost\r\ncontent-type: application/json\r\n"
)
_PATTERNS: tuple[tuple[bytes, bytes], ...] = (
    (b"", b""),  # sends nothing
    (_HEAD, b""),  # never ends its head
    (_HEAD, b"x"),  # sends its head in single bytes
    (_HEAD + b"content-length: 4000\r\n\r\n", b""),  # never sends its body
    (_HEAD + b"content-length: 4000\r\n\r\n", b" "),  # sends its body in single bytes
)


async def closed_all(port: int, peers: int) -> float:
    """Open the connections; return the seconds until the service had closed the last one."""
    opened = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", port) for _ in range(peers))
    )
    slow = zip(opened, itertools.cycle(_PATTERNS), strict=False)
    return max(await asyncio.gather(*(_until_closed(*peer, *pattern) for peer, pattern in slow)))


async def _until_closed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, dribble: bytes
) -> float:
    """Return the seconds until the service closes a connection that sends too slowly."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        writer.write(first)
        while time.monotonic() - began < PATIENCE:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    if not await reader.read(4096):
                        break
            writer.write(dribble)
    writer.transport.abort()
    return time.monotonic() - began


if __name__ == "__main__":
    print(asyncio.run(closed_all(int(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201 - its result
