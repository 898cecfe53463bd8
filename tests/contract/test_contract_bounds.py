"""Every part of a request is sent up to its bound and far beyond it, to a real process.

A refused part must cost nothing. So the memory of the process and the time of `/healthz` are
measured while each part is sent.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import repeat

import pytest

from tests.faults.stage import Stage, resources, staged
from tests.faults.wire import Connection, Reset

pytestmark = [pytest.mark.anyio]

MIB = 2**20
PAST = 16 * MIB  # bytes that each of `FLOODS` connections offers
FLOODS = 6
MOST_GROWTH = 40 * MIB  # if nothing bounds a part, 96 MiB stay in memory
BODY, BODIES, CONNECTIONS = 2 * MIB, 4 * MIB, 120
HOST = b"Host: localhost\r\n"
SCORE = b"POST /v1/detectors/none/score HTTP/1.1\r\n" + HOST
CHUNKED = SCORE + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
WAITING = SCORE + b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000
EXPECTING = SCORE + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n "
LENGTH = SCORE + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@dataclass(frozen=True)
class Part:
    """A part of a request: what comes before it, one piece of it, and what ends the request."""

    name: str
    before: bytes
    piece: bytes
    after: bytes
    within: int  # a request with this many bytes of the part is served
    served: int  # the status of the answer to that request
    floods: int = FLOODS  # connections that offer it; a part of whole requests costs more

    def wire(self, size: int) -> bytes:
        """Return a request with `size` bytes of this part."""
        return self.before + self.piece * (size // len(self.piece)) + self.after

    def flood(self) -> Iterator[bytes]:
        """Yield a request in which this part has no end."""
        yield self.before
        block = self.piece * max(1, 65_536 // len(self.piece))
        yield from repeat(block, PAST // len(block))


GET = b"GET /healthz HTTP/1.1\r\n" + HOST
KIB = 1024
PARTS = [
    Part("line", b"GET /", b"a", b" HTTP/1.1\r\n" + HOST + b"\r\n", 60 * KIB, 404),
    Part("query", b"GET /healthz?", b"q", b" HTTP/1.1\r\n" + HOST + b"\r\n", 60 * KIB, 200),
    Part("header name", GET, b"a", b": b\r\n\r\n", 60 * KIB, 200),
    Part("header value", GET + b"a: ", b"b", b"\r\n\r\n", 60 * KIB, 200),
    Part("headers", GET, b"a: b\r\n", b"\r\n", 255 * 6, 200),
    Part("Authorization", GET + b"Authorization: Bearer ", b"b", b"\r\n\r\n", 60 * KIB, 200),
    Part("empty lines", b"", b"\r\n", GET + b"\r\n", 60 * KIB, 200),
    Part("body", LENGTH % BODY, b" ", b"", BODY, 404),
    Part("chunked body", CHUNKED, b"400\r\n" + b" " * 1024 + b"\r\n", b"0\r\n\r\n", MIB, 404),
    Part("tiny chunks", CHUNKED, b"1\r\n \r\n", b"0\r\n\r\n", 60 * KIB, 404),
    Part("chunk extension", CHUNKED + b"1;", b"e", b"\r\n \r\n0\r\n\r\n", 60 * KIB, 404),
    Part("extensions", CHUNKED, b"1;eeeeeeeee\r\n \r\n", b"0\r\n\r\n", 32 * KIB, 404),
    Part("trailer value", CHUNKED + b"0\r\na: ", b"b", b"\r\n\r\n", 60 * KIB, 404),
    Part("trailer name", CHUNKED + b"0\r\n", b"b", b": a\r\n\r\n", 60 * KIB, 404),
    Part("trailers", CHUNKED + b"0\r\n", b"a: b\r\n", b"\r\n", 40 * KIB, 404),
    Part("pipelined", GET + b"\r\n", GET + b"\r\n", b"", 40 * KIB, 200, 1),
    Part("pipelined bodies", GET + b"\r\n", WAITING, b"", 20 * len(WAITING), 200, 3),
    Part("pipelined expectations", GET + b"\r\n", EXPECTING, b"", 20 * len(EXPECTING), 200, 1),
    Part(
        "pipelined offers", GET + b"\r\n",
        GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"", 64 * KIB, 200, 1,
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Use one event loop for all parts."""
    return "asyncio"


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    """Serve with small bounds, in a separate process."""
    bounds = {"max_body_bytes": BODY, "bodies_max_bytes": BODIES, "max_connections": CONNECTIONS}
    async with staged(body_seconds=60.0, header_seconds=60.0, **bounds) as stage:
        await healthz(stage, 0.5)  # warm up
        yield stage


async def healthz(stage: Stage, seconds: float, done: asyncio.Event | None = None) -> float:
    """Ask repeatedly; return the longest time of an answer."""
    longest, end = 0.0, time.monotonic() + seconds
    async with Connection(stage.port) as connection:
        while time.monotonic() < end and not (done and done.is_set()):
            began = time.monotonic()
            assert (await connection.ask("GET", "/healthz")).status == 200
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(0.005)
    return longest


async def flood(stage: Stage, part: Part) -> bytes:
    """Send a part without an end until the service refuses it; return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    reply = asyncio.create_task(reader.read(4096))
    try:
        with contextlib.suppress(ConnectionError):
            for block in part.flood():
                writer.write(block)
                async with asyncio.timeout(30):
                    await writer.drain()
                if reply.done():
                    break
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                return await reply
        return b""
    finally:
        reply.cancel()
        writer.transport.abort()


COSTLY = {"pipelined offers", "pipelined expectations"}  # slow, and bounded as `pipelined` is


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, id=part.name, marks=[pytest.mark.thorough] * (part.name in COSTLY))
        for part in PARTS
    ],
)
async def test_each_part_of_a_request_is_bounded(stage: Stage, part: Part) -> None:
    """A request part is served up to its bound; a larger part is refused without harm to others."""
    async with Connection(stage.port) as connection:
        assert (await connection.send(part.wire(part.within))).status == part.served
    quiet = await healthz(stage, 0.3)
    before, _ = resources(stage.apis[0].pid)
    done = asyncio.Event()
    beside = asyncio.create_task(healthz(stage, 60, done))
    replies = await asyncio.gather(*(flood(stage, part) for _ in range(part.floods)))
    done.set()
    assert await beside < max(10.0, 20 * quiet)  # endless if nothing bounds the part
    grown = resources(stage.apis[0].pid)[0] - before
    assert grown < MOST_GROWTH, f"{grown / MIB:.0f} MiB"
    if part.name != "body":  # it ends where its length says
        statuses = {reply.split(b" ")[1] for reply in replies if reply}
        refusals = {b"400", b"413", b"431", b"503"}
        assert part.name.startswith("pipelined") or statuses <= refusals, statuses


async def test_bodies_in_flight_share_a_bounded_number_of_bytes(stage: Stage) -> None:
    """Bodies in flight share a budget: beyond it a body is 503, and small ones are served."""
    before, _ = resources(stage.apis[0].pid)
    connections = []
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(LENGTH % BODY + b" " * (BODY - 1))
        connections.append((reader, writer))

    async def refused() -> bool:
        begun = [reader for reader, _ in connections if reader._buffer]
        return len(begun) >= 6 and all(b"/busy" in reader._buffer for reader in begun)

    try:
        await stage.until(refused)
        replies = [bytes(reader._buffer) for reader, _ in connections if reader._buffer]
        assert all(
            b" 503 " in reply and b"retry-after" in reply and b"/busy" in reply for reply in replies
        )
        small = b'{"vectors": [[1]]}'
        async with Connection(stage.port) as connection:
            for _ in range(10):
                answer = await connection.ask("POST", "/v1/detectors/none/score", small)
                assert answer.status == 404
        assert resources(stage.apis[0].pid)[0] - before < MOST_GROWTH
    finally:
        for _, writer in connections:
            writer.transport.abort()

    async def served() -> bool:
        async with Connection(stage.port) as connection:
            return (await connection.send(LENGTH % BODY + b" " * BODY)).status == 404

    await stage.until(served)  # the memory of aborted requests is released


@pytest.mark.parametrize("sent", [0, 100_000])
async def test_an_announced_body_takes_no_memory_until_it_comes(stage: Stage, sent: int) -> None:
    """A body that is announced and does not come reserves room, not memory; without room it is 503.

    Scoring and health continue beside a hundred such bodies, and an aborted request gives its room
    back.
    """
    before, _ = resources(stage.apis[0].pid)
    head = (LENGTH % BODY).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    promised = []
    done = asyncio.Event()
    beside = asyncio.create_task(healthz(stage, 60, done))
    try:
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(head + b" " * sent)
            promised.append((reader, writer))

        async def refused() -> bool:
            return sum(b" 503 " in reader._buffer for reader, _ in promised) >= 90

        await stage.until(refused)
        async with Connection(stage.port) as connection:
            small = b'{"vectors": [[1]]}'
            answer = await connection.ask("POST", "/v1/detectors/none/score", small)
            assert answer.status == 404
        assert resources(stage.apis[0].pid)[0] - before < MOST_GROWTH
    finally:
        done.set()
        for _, writer in promised:
            writer.transport.abort()
    assert await beside < 10

    async def served() -> bool:
        async with Connection(stage.port) as connection:
            return (await connection.send(LENGTH % BODY + b" " * BODY)).status == 404

    await stage.until(served)


async def test_few_requests_are_read_behind_an_event_stream(stage: Stage) -> None:
    """Behind a stream of events a connection reads only a few of the requests that are sent."""
    before, _ = resources(stage.apis[0].pid)
    stream = b"GET /v1/stream HTTP/1.1\r\n" + HOST + b"\r\n"
    opened = []
    try:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(stream)
            assert (await reader.readline()).split()[1] == b"200"
            writer.write(WAITING * 60)  # 72 MB in all
            opened.append(writer)
        await healthz(stage, 0.5)
        assert resources(stage.apis[0].pid)[0] - before < MOST_GROWTH
    finally:
        for writer in opened:
            writer.transport.abort()


async def test_a_stream_ends_with_its_client(stage: Stage) -> None:
    """A client that closes its sending side ends its stream at once, so that others have room."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(b"GET /v1/stream HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    writer.write_eof()
    async with asyncio.timeout(60):
        await reader.read()
    writer.close()


async def test_connections_are_bounded(stage: Stage) -> None:
    """A connection beyond the bound gets 503 and is closed; later there is room again."""
    opened = []
    try:
        while len(opened) < CONNECTIONS:
            opened.append(await asyncio.open_connection("127.0.0.1", stage.port))
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        async with asyncio.timeout(10):
            reply = await reader.read()
        assert reply.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after" in reply
        writer.close()
    finally:
        for _, writer in opened:
            writer.transport.abort()

    async def open_connection() -> bool:
        with contextlib.suppress(Reset, OSError):
            async with Connection(stage.port) as connection:
                return (await connection.ask("GET", "/healthz")).status == 200
        return False

    await stage.until(open_connection)


JSON, CSV, NDJSON, NPY = "application/json", "text/csv", "application/x-ndjson", "application/x-npy"
COSTLY_ROWS = [
    (JSON, b'{"vectors":', b"["),
    (JSON, b'{"vectors":[[', b"9"),
    (JSON, b'{"vectors":[[1e-', b"9"),
    (JSON, b'{"vectors":[', b"[],"),
    (JSON, b'{"records":[{', b'"a":1,'),
    (JSON, b'{"records":[{"', b"k"),
    (JSON, b'{"records":[{"', b"\\u0041"),
    (JSON, b'{"vectors":[[1,2,3]],"sources":["', b"s"),
    (JSON, b'{"vectors":[[1,2,3]],"timestamps":[', b"9"),
    (CSV, b"", b","),
    (CSV, b"a,b,c\n", b"\n"),
    (CSV, b'a,b,c\n"', b"1,1,1\n"),
    (NDJSON, b'{"record":{"a":"', b"x"),
    (NDJSON, b"", b"["),
    (NPY, b"\x93NUMPY\x03\x00\xff\xff\xff\x00", b"("),
]


async def test_rows_that_are_costly_to_read_take_little_memory(stage: Stage) -> None:
    """Bodies of rows without an end, of every media type, are refused in bounded memory."""
    await stage.make("costly", dimension=None, features=["a", "b", "c"])
    before, _ = resources(stage.apis[0].pid)
    async with Connection(stage.port) as connection:
        for kind, start, piece in COSTLY_ROWS:
            body = start + piece * ((BODY - len(start)) // len(piece))
            path = "/v1/detectors/costly/normal"
            answer = await connection.ask("POST", path, body, content_type=kind)
            assert answer.status in {413, 422}, (kind, start, piece, answer)
            grown = resources(stage.apis[0].pid)[0] - before
            assert grown < MOST_GROWTH, f"{start!r} {piece!r}: {grown / MIB:.0f} MiB"


async def test_invalid_keys_are_not_remembered(stage: Stage) -> None:
    """Keys that are tried and are not valid are not remembered, however many there are."""
    before, _ = resources(stage.apis[0].pid)
    async with Connection(stage.port) as connection:
        for i in range(1000):
            answer = await connection.ask("GET", "/v1/keys", authorization=f"x{i} " + "k" * 60_000)
            assert answer.status == 200
    grown = resources(stage.apis[0].pid)[0] - before
    assert grown < MOST_GROWTH, f"{grown / MIB:.0f} MiB"
