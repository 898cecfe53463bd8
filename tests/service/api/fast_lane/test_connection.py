"""The protocol on real sockets: the fast lane and the application, in order, with deadlines."""

import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from service.api.access import Access
from service.api.body_budget import BodyBudget
from service.api.fast_lane.lane import _HEADS as MOST_HEADS
from service.api.fast_lane.lane import Lane
from service.api.middleware import BodyLimit, Headers
from service.api.origin import Hosts, OriginCheck
from service.api.server import Server, make_server
from service.domain.api_key import Grant
from service.domain.inline_bounds import InlineBounds
from service.domain.scope import LEAST_BODY_BYTES, Scope
from service.scoring.champions import Champions
from service.scoring.core import Scoring
from service.scoring.cost import fits_inline, inline_bounds
from service.scoring.request import ScoreRequest
from service.scoring.vectors import OCTETS
from service.settings import Settings
from service.store.api_keys import KeyTableState
from service.telemetry.metrics import Metrics
from tests.service.trained import champion
from tests.waiting import until

pytestmark = pytest.mark.anyio

PATH = "/v1/detectors/pump/score"
VECTOR = b'{"vectors": [[1, 2, 3]]}'
LIMIT = 100_000
QUICK = {"header_seconds": 0.5, "body_seconds": 0.5, "idle_seconds": 0.8}
DEADLINE = 10.0


def request(body: bytes = VECTOR, *fields: str, path: str = PATH, verb: str = "POST") -> bytes:
    """Return a request on the wire."""
    lines = [f"{verb} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields]
    if not any(field.lower().startswith("content-type:") for field in fields):
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def way(self) -> str:
        """Who answered the request: `lane` or `application`."""
        return "application" if self.headers.get("way") else "lane"


@dataclass
class Peer:
    """A client that sends exactly the given bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, body: bool = True) -> Answer:
        async with asyncio.timeout(DEADLINE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:-2])
            size = int(fields.get("content-length", 0)) if body else 0
            content = await self.reader.readexactly(size)
        return Answer(int(head[0].split()[1]), fields, content)

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        """Return the bytes until the end; a reset returns none."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read()


@dataclass
class Echo:
    """An application that repeats its request; `/held` waits until it may answer."""

    lane: Lane
    settings: Settings
    release: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update(lane=self.lane, settings=self.settings)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        if scope["path"] == "/held":
            self.arrived.set()
            await self.release.wait()
        body = f"{scope['method']} {scope['path']} {size}".encode()
        if scope["path"] == "/large":
            body = bytes(2**25)
        headers = [(b"content-length", str(len(body)).encode()), (b"way", b"application")]
        if presented := sum(name == b"authorization" for name, _ in scope["headers"]):
            headers.append((b"presented", str(presented).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Served:
    echo: Echo
    access: Access
    server: Server
    port: int
    serving: asyncio.Task
    registry: CollectorRegistry
    metrics: Metrics
    peers: list[Peer] = field(default_factory=list)

    async def peer(self, **options: Any) -> Peer:
        self.peers.append(Peer(*await asyncio.open_connection("127.0.0.1", self.port, **options)))
        return self.peers[-1]

    def counted(self) -> float | None:
        return self.registry.get_sample_value(
            "anamnesis_vectors_scored_total", {"detector": "pump"}
        )


@asynccontextmanager
async def served(grants: Sequence[Grant] = (), **options: Any) -> AsyncIterator[Served]:
    """Serve a champion of dimension 3, named `pump`, and the echo application."""
    settings = Settings(max_body_bytes=LIMIT, **options)
    champions, registry = Champions(1), CollectorRegistry()
    champions.install(champion())
    metrics = Metrics(registry)
    access = Access(may_be_open=True)
    access.adopt(KeyTableState(0, ""), grants)
    hosts, budget = Hosts(settings), BodyBudget(16 * LIMIT, LIMIT)
    echo = Echo(Lane(champions, Scoring(champions, (metrics,)), access, hosts, budget), settings)
    app = Headers(OriginCheck(BodyLimit(echo, LIMIT, budget), access, hosts))
    server = make_server(app, settings)
    server.capture_signals = contextlib.nullcontext
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        api = Served(echo, access, server, listener.getsockname()[1], serving, registry, metrics)
        try:
            yield api
            metrics.flush()
        finally:
            echo.release.set()
            for peer in api.peers:
                peer.writer.close()
            server.should_exit = True
            await serving


@pytest.fixture
async def api() -> AsyncIterator[Served]:
    """Serve with the usual deadlines."""
    async with served() as api:
        yield api


async def test_the_lane_answers_as_the_core_does(api: Served) -> None:
    """Status, type, body and headers are those of the route, for JSON and octet-stream."""
    peer = await api.peer()
    answer = await peer.ask(request(VECTOR, "Content-Type: application/json"))
    core = api.echo.lane._scoring.score(ScoreRequest("pump", VECTOR))
    assert (answer.way, answer.status, answer.body) == ("lane", 200, core.body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "date" in answer.headers
    octets = (f"Content-Type: {OCTETS}", f"Accept: {OCTETS}")
    answer = await peer.ask(request(np.ones(6, "<f4").tobytes(), *octets))
    assert (answer.way, len(answer.body), answer.headers["x-anamnesis-rows"]) == ("lane", 26, "2")


async def test_errors_are_problems_and_the_connection_continues(api: Served) -> None:
    """An invalid body fails its own request alone; the connection continues."""
    peer = await api.peer()
    peer.send(request() + request(b'{"vectors": [[1, NaN, 3]]}') + request(b"") + request())
    answers = [await peer.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 422, 422, 200]
    assert orjson.loads(answers[1].body)["column"] == 1
    assert answers[1].headers["content-type"] == "application/problem+json"
    assert {answer.way for answer in answers} == {"lane"}


async def test_a_remembered_head_is_not_parsed_again(api: Served) -> None:
    """A remembered head is not parsed again; its body is read, and every other head is parsed."""
    first, second = await api.peer(), await api.peer()
    await first.ask(request())
    assert len(api.echo.lane._heads) == 1
    for body in (VECTOR, b'{"vectors": [[9, 2, 3]]}', b'{"vectors": [[1, 2, x]]}', b" " * 24):
        core = api.echo.lane._scoring.score(ScoreRequest("pump", body))
        answer = await second.ask(request(body))
        assert (answer.way, answer.status, answer.body) == ("lane", core.status, core.body)
    assert len(api.echo.lane._heads) == 1
    assert (await second.ask(request(VECTOR, "Connection: close"))).status == 200
    assert await second.rest() == b""
    assert len(api.echo.lane._heads) == 1
    first.send(request() + request(b'{"vectors": [[9, 2, 3]]}')[:-1])
    assert (await first.answer()).status == 200
    assert (await first.ask(b"x")).status == 422
    assert (await first.ask(request() + request(path="/"))).way == "lane"
    assert (await first.answer()).way == "application"


async def test_a_head_is_remembered_only_if_its_end_is_certain(api: Served) -> None:
    """A body that contains the end of a head does not change where bodies begin."""
    peer = await api.peer()
    for wire in (
        request(b'{"vectors":\r\n\r\n[[1, 2, 3]]}'),
        request().replace(b"\r\n", b"\n").replace(b"{", b"{\r\n\r\n").replace(b": 24", b": 28"),
    ):
        for _ in range(2):
            answer = await peer.ask(wire)
            if answer.status == 400:  # not every parser takes bare line feeds
                peer = await api.peer()
            else:
                assert (answer.way, answer.status) == ("lane", 200)


async def test_a_remembered_head_of_a_deleted_detector_is_not_served(api: Served) -> None:
    """For a deleted detector the application answers; remembered heads are bounded."""
    peer = await api.peer()
    await peer.ask(request())
    serving = api.echo.lane._champions.get("pump")
    api.echo.lane._champions.forget("pump")
    assert (await peer.ask(request())).way == "application"
    api.echo.lane._champions.install(serving)
    assert (await peer.ask(request())).way == "lane"
    for i in range(2 * MOST_HEADS):
        api.echo.lane.remember(b"%d\r\n\r\n" % i, ScoreRequest("pump", b""), None)
        assert len(api.echo.lane._heads) <= MOST_HEADS


@pytest.mark.parametrize(
    ("fields", "path", "verb"),
    [
        ((), f"{PATH}?explain=1", "POST"), ((), f"{PATH}/", "POST"), ((), PATH, "PUT"),
        ((), "/v1/detectors/nobody/score", "POST"), ((), "/v1/detectors/p%75mp/score", "POST"),
        (("Content-Encoding: identity",), PATH, "POST"), (("Upgrade: h2c",), PATH, "POST"),
        (("Accept: a", "Accept: b"), PATH, "POST"), ((), PATH, "OPTIONS"), ((), "/", "GET"),
    ],
)  # fmt: skip
async def test_other_requests_go_to_the_application(
    api: Served, fields: tuple[str, ...], path: str, verb: str
) -> None:
    """The lane leaves every request that it does not know to the application, with its body."""
    peer = await api.peer()
    answer = await peer.ask(request(VECTOR, *fields, path=path, verb=verb))
    assert answer.way == "application"
    assert answer.body.endswith(b" 24")
    assert (await peer.ask(request())).way == "lane"


SECRETS = {scope: f"secret-of-{scope}".encode() for scope in Scope}


def header(secret: bytes) -> str:
    """Return the header with a key."""
    return f"Authorization: Bearer {secret.decode()}"


@pytest.mark.parametrize("detectors", [None, {"pump"}, {"press"}, set()])
@pytest.mark.parametrize("scope", Scope)
async def test_the_lane_serves_keys_that_may_score(
    scope: Scope, detectors: set[str] | None
) -> None:
    """A key that may not score, or not with this detector, goes to the application."""
    listed = None if detectors is None else frozenset(detectors)
    grant = Grant.of(SECRETS[scope], "x", frozenset({scope}), detectors=listed)
    async with served([grant]) as api:
        peer = await api.peer()
        may = scope == "score" and (detectors is None or "pump" in detectors)
        for _ in range(2):
            answer = await peer.ask(request(VECTOR, header(SECRETS[scope])))
            assert answer.way == ("lane" if may else "application")
            assert answer.headers.get("presented") == (None if may else "1")
        assert api.counted() is None
        api.metrics.flush()
        assert api.counted() == (2.0 if may else None)


async def test_the_lane_serves_no_request_without_a_valid_key() -> None:
    """Without a key, with a wrong key or with two keys, the application answers with the error."""
    secret = SECRETS[Scope.SCORE]
    async with served([Grant.of(secret, "x", frozenset({Scope.SCORE}))]) as api:
        peer = await api.peer()
        for fields in (
            (), (header(secret + b"x"),), (header(secret[:-1]),), (header(secret), header(secret)),
            (f"Authorization: Basic {secret.decode()}",), (f"X-API-Key: {secret.decode()}",),
            (header(secret), "X-API-Key: x"), ("Authorization:",),
        ):  # fmt: skip
            assert (await peer.ask(request(VECTOR, header(secret)))).way == "lane"
            assert (await peer.ask(request(VECTOR, *fields))).way == "application", fields


async def test_the_lane_forgets_a_revoked_key() -> None:
    """A revoked key is refused on a connection that used it before; other keys stay valid."""
    revoked, valid = (Grant.of(SECRETS[s], s, frozenset({Scope.SCORE})) for s in ("score", "read"))
    async with served([revoked, valid]) as api:
        peers = [(await api.peer(), SECRETS[name]) for name in (Scope.SCORE, Scope.READ)]
        for _ in range(3):
            for peer, secret in peers:
                assert (await peer.ask(request(VECTOR, header(secret)))).way == "lane"
        api.access.adopt(KeyTableState(1, ""), [valid])
        ways = [(await peer.ask(request(VECTOR, header(secret)))).way for peer, secret in peers]
        assert ways == ["application", "lane"]
        api.access.adopt(KeyTableState(2, ""), [])
        assert (await peers[1][0].ask(request(VECTOR, header(SECRETS[Scope.READ])))).way != "lane"
        assert (await peers[1][0].ask(request())).way == "application", "shut, not open"


async def test_the_lane_enforces_the_rate_of_a_key() -> None:
    """Requests beyond a key's rate go to the application, which answers with Retry-After."""
    secret = SECRETS[Scope.SCORE]
    grant = Grant.of(secret, "x", frozenset({Scope.SCORE}), requests_per_second=3.0)
    async with served([grant]) as api:
        peer = await api.peer()
        peer.send(request(VECTOR, header(secret)) * 5)
        assert [(await peer.answer()).way for _ in range(5)] == ["lane"] * 3 + ["application"] * 2


def test_every_body_limit_exceeds_the_bodies_of_the_lane() -> None:
    """The smallest possible body limit of a key is larger than the bodies that the lane takes."""
    for kind in (OCTETS, "application/json"):
        assert not fits_inline(kind, LEAST_BODY_BYTES, inline_bounds(10**6, 10**6))


async def test_costly_scores_are_judged_outside_the_event_loop(api: Served) -> None:
    """Once a version with a costly score serves, a remembered head goes to the application."""
    peer = await api.peer()
    assert [(await peer.ask(request())).way for _ in range(3)] == ["lane"] * 3
    champions = api.echo.lane._champions
    costly = replace(champions.get("pump"), generation=2, inline=inline_bounds(3, 0))
    champions.install(costly)
    assert (await peer.ask(request())).way == "application"
    assert (await peer.ask(request(VECTOR, "X-Other: 1"))).way == "application"


async def test_a_turn_judges_as_many_requests_as_the_budget_allows(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If each request takes a third of the event loop's budget, three are answered at a time."""
    champions, lane = api.echo.lane._champions, api.echo.lane
    bound = 3 * len(VECTOR)
    champions.install(
        replace(champions.get("pump"), generation=2, inline=InlineBounds(bound, bound, bound))
    )
    turns, score = [], lane._scoring.score_many
    monkeypatch.setattr(
        lane._scoring, "score_many", lambda asked: turns.append(len(asked)) or score(asked)
    )
    peer = await api.peer()
    peer.send(request() * 7)
    for _ in range(7):
        assert (await peer.answer()).status == 200
    assert turns == [3, 3, 1]


async def test_offers_of_another_protocol_are_declined(api: Served) -> None:
    """A client that offers HTTP/2 or websockets gets its answer in HTTP/1.1."""
    peer = await api.peer()
    for protocol in ("h2c", "websocket"):
        offer = (
            "Connection: Upgrade, HTTP2-Settings",
            f"Upgrade: {protocol}",
            "HTTP2-Settings: AAMA",
        )
        peer.send(request(b"", *offer, verb="GET", path="/") + request())
        assert (await peer.answer()).way == "application"
        assert (await peer.answer()).status == 200
        for path, way in ((PATH, "lane"), ("/other", "application")):
            wire = request(VECTOR, *offer, path=path) + request(b"", path="/after")
            for cut in (len(wire), len(wire) - 40, wire.index(b"vectors"), 30):
                peer.send(wire[:cut])
                await peer.writer.drain()
                peer.send(wire[cut:])
                answer = await peer.answer()
                assert (answer.status, answer.way) == (200, way)
                assert way == "lane" or answer.body == b"POST /other 24", "the body is read"
                assert (await peer.answer()).body == b"POST /after 0"


async def test_an_offer_on_a_connection_that_closes_is_declined(api: Served) -> None:
    """A client that offers another protocol and closes afterwards gets its answer."""
    for path, way in ((PATH, "lane"), ("/other", "application")):
        for connection in ("close, Upgrade", "Upgrade, close"):
            peer = await api.peer()
            wire = request(VECTOR, f"Connection: {connection}", "Upgrade: h2c", path=path)
            answer = await peer.ask(wire)
            assert (answer.status, answer.way) == (200, way)
            assert await peer.rest() == b""


async def test_many_offers_in_one_write_are_each_declined(api: Served) -> None:
    """Each of many requests that offer another protocol is answered; CONNECT is refused."""
    peer = await api.peer()
    offer = request(VECTOR, "Connection: Upgrade", "Upgrade: h2c")
    peer.send(offer * 900)
    for _ in range(900):
        assert (await peer.answer()).status == 200
    peer.send(request(b"", verb="CONNECT", path="example.com:443") + request())
    assert (await peer.answer()).status == 400
    assert await peer.rest() == b""


async def test_head_has_no_body(api: Served) -> None:
    """An answer to HEAD has no body, and the next answer follows it."""
    peer = await api.peer()
    peer.send(request(b"", verb="HEAD") + request())
    assert (await peer.answer(body=False)).way == "application"
    assert (await peer.answer()).body == f"POST {PATH} 24".encode()


async def test_pipelined_requests_keep_their_order(api: Served) -> None:
    """Requests to lane and application, in packets cut at random, are answered in order."""
    rng = np.random.default_rng(0)
    wires, wire = [], b""
    for i in range(300):
        if rng.random() < 0.7:
            wires.append(1 + i % 7)
            wire += request(orjson.dumps({"vectors": [[1, 2, 3]] * wires[-1]}))
        else:
            wires.append(f"POST /{i} 24".encode())
            wire += request(path=f"/{i}")
    peer = await api.peer()

    async def send() -> None:
        at = 0
        while at < len(wire):
            size = int(rng.integers(1, 4000))
            peer.send(wire[at : at + size])
            at += size
            await asyncio.sleep(0)

    sending = asyncio.create_task(send())
    for expected in wires:
        answer = await peer.answer()
        if answer.way == "lane":
            assert len(orjson.loads(answer.body)["scores"]) == expected
        elif isinstance(expected, bytes):
            assert answer.body == expected
        else:
            assert answer.body == b"POST %b %d" % (
                PATH.encode(), len(orjson.dumps({"vectors": [[1, 2, 3]] * expected})),
            )  # fmt: skip
    await sending


async def test_a_request_waits_behind_a_slow_one(api: Served) -> None:
    """An answer of the lane waits for an earlier answer of the application."""
    peer = await api.peer()
    peer.send(request(path="/held") + request() + request(path="/after"))
    async with asyncio.timeout(DEADLINE):
        await api.echo.arrived.wait()
    api.echo.release.set()
    bodies = [(await peer.answer()).body for _ in range(3)]
    assert bodies[0] == b"POST /held 24"
    assert bodies[2] == b"POST /after 24"


async def test_chunked_bodies_and_expect_continue_are_served(api: Served) -> None:
    """Chunked bodies are served, and clients that wait for `100 Continue`."""
    peer = await api.peer()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = await peer.ask(head + b"5\r\n12345\r\n1\r\n6\r\n0\r\n\r\n")
    assert answer.body == f"POST {PATH} 6".encode()
    peer.send(request(VECTOR, "Expect: 100-continue").removesuffix(VECTOR))
    assert (await peer.answer()).status == 100
    assert (await peer.ask(VECTOR)).body == f"POST {PATH} 24".encode()
    assert (await peer.ask(request())).way == "lane"


async def test_an_old_client_is_not_sent_100_continue(api: Served) -> None:
    """A client of HTTP/1.0 does not know `100 Continue`, and would take it for the answer."""
    peer = await api.peer()
    head = request(VECTOR, "Expect: 100-continue").removesuffix(VECTOR)
    peer.send(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
    await peer.writer.drain()
    await asyncio.sleep(0.01)
    assert (await peer.ask(VECTOR)).status == 200


async def test_the_connection_closes_if_the_client_asks(api: Served) -> None:
    """With `Connection: close` or HTTP/1.0 the connection ends after the answer."""
    closing = request(VECTOR, "Connection: close")
    for wire in (closing, closing.replace(b"HTTP/1.1", b"HTTP/1.0"), closing + request()):
        for cut in (len(wire), len(closing) - 3):
            peer = await api.peer()
            peer.send(wire[:cut])
            await peer.writer.drain()
            await asyncio.sleep(0.01)
            peer.send(wire[cut:])
            answer = await peer.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await peer.rest() == b""


async def test_a_request_that_comes_byte_by_byte_is_served(api: Served) -> None:
    """A request that comes byte by byte is one request."""
    peer = await api.peer()
    peer.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request():
        peer.send(bytes([byte]))
        await asyncio.sleep(0)
    answer = await peer.answer()
    assert (answer.way, answer.status) == ("lane", 200)


@pytest.mark.parametrize("paths", [(PATH, PATH), ("/a", "/b"), (PATH, "/b"), ("/a", PATH)])
async def test_half_closed_peers_get_their_answers(api: Served, paths: Sequence[str]) -> None:
    """A client that closes its sending side after its requests still gets the answers."""
    peer = await api.peer()
    peer.send(b"".join(request(path=path) for path in paths))
    peer.writer.write_eof()
    assert [(await peer.answer()).status for _ in paths] == [200, 200]
    assert await peer.rest() == b""


@pytest.mark.parametrize("path", [PATH, "/other"])
@pytest.mark.parametrize("missing", [1, 60])
async def test_half_a_request_is_refused(api: Served, path: str, missing: int) -> None:
    """If a client closes its sending side within a request, the answer is 400."""
    peer = await api.peer()
    peer.send(request() + request(path=path)[:-missing])
    peer.writer.write_eof()
    assert [(await peer.answer()).status for _ in range(2)] == [200, 400]
    assert await peer.rest() == b""


async def test_a_broken_connection_leaves_nothing_behind(api: Served) -> None:
    """A connection that ends anywhere in a request leaves nothing behind."""
    wire = request()
    for cut in (1, 30, len(wire) - 5, len(wire)):
        for cut_off in (wire, request(path="/other")):
            peer = await api.peer()
            peer.send(cut_off[:cut])
            await peer.writer.drain()
            peer.writer.transport.abort()
    peer = await api.peer()
    assert (await peer.ask(request())).status == 200
    peer.writer.close()
    await until(lambda: not api.server.server_state.connections)
    assert not api.echo.lane._waiting


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_refusal_reaches_a_peer_that_sends_its_whole_body_first(
    api: Served, version: str
) -> None:
    """If the connection closes, the rest of the body is read, so that the answer is not lost."""
    peer, body = await api.peer(), bytes(2**23)
    head = request(body, "Connection: close", path="/other").removesuffix(body)
    peer.send(head.replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
    await until(lambda: api.server.server_state.total_requests == 1)
    async with asyncio.timeout(DEADLINE):
        peer.send(body)
        await peer.writer.drain()
    assert (await peer.answer()).status == 413
    assert await peer.rest() == b""


CHUNKED = "Transfer-Encoding: chunked\r\n\r\nnone\r\n"


@pytest.mark.parametrize("rest", [f"Content-Length: {LIMIT + 1}\r\n\r\n", CHUNKED])
async def test_no_request_behind_a_close_is_served(
    api: Served, caplog: pytest.LogCaptureFixture, rest: str
) -> None:
    """Once an answer has closed the connection, the application gets no request behind it."""
    peer = await api.peer()
    behind = f"POST /other HTTP/1.1\r\nHost: localhost\r\n{rest}".encode()
    first = request(VECTOR, "Connection: keep-alive", path="/held")
    peer.send(first.replace(b"HTTP/1.1", b"HTTP/1.0") + behind)  # 1.0 is always closed
    async with asyncio.timeout(DEADLINE):
        await api.echo.arrived.wait()
    api.echo.release.set()
    answer = await peer.answer()
    assert (answer.body, answer.headers["connection"]) == (b"POST /held 24", "close")
    assert await peer.rest() == b""
    await until(lambda: not api.server.server_state.connections)
    assert api.server.server_state.total_requests == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_length_over_the_bound_is_413_at_once(api: Served) -> None:
    """A length over the bound is 413 at once; a chunked body is 413 once it is complete."""
    peer = await api.peer()
    peer.send(
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode()
    )
    assert (await peer.answer()).status == 413
    peer = await api.peer()
    peer.send(
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    for _ in range(11):
        peer.send(b"2710\r\n" + bytes(10_000) + b"\r\n")
    assert (await peer.answer()).status == 413


@pytest.mark.parametrize("before", [b"", request(), request() * 3])
@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\r\n\r\n", b"POST  HTTP/9\r\n\r\n"])
async def test_garbage_gets_400_and_a_close(api: Served, before: bytes, garbage: bytes) -> None:
    """Garbage gets 400 and a close, after the answers to the requests before it."""
    peer = await api.peer()
    peer.send(before + garbage)
    for _ in range(before.count(b"POST")):
        assert (await peer.answer()).status == 200
    answer = await peer.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.headers["content-type"] == "application/problem+json"
    assert await peer.rest() == b""


@pytest.mark.parametrize("offer", ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n"])
async def test_a_transfer_coding_without_an_end_gets_400(api: Served, offer: str) -> None:
    """Of all transfer codings only `chunked` says where a body ends."""
    peer = await api.peer()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{offer}Transfer-Encoding: gzip\r\n\r\n"
    assert (await peer.ask(head.encode())).status == 400
    assert await peer.rest() == b""


@pytest.mark.parametrize("target", ["http:///other", "http://localhost", "http://!/other"])
async def test_a_target_without_a_path_is_a_problem(api: Served, target: str) -> None:
    """A target in absolute form needs a host and a path; the requests before it are answered."""
    peer = await api.peer()
    peer.send(request(path="/held") + request(path=target))
    async with asyncio.timeout(DEADLINE):
        await api.echo.arrived.wait()
    api.echo.release.set()
    assert (await peer.answer()).body == b"POST /held 24"
    assert (await peer.answer()).status == 400
    assert await peer.rest() == b""
    peer = await api.peer()
    assert (await peer.ask(request(path=target))).status == 400


@pytest.mark.parametrize("path", [PATH, "/other"])
async def test_a_lack_of_memory_while_a_body_is_read_is_503(
    api: Served, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """If memory runs out while a body is read, the answer is 503 `busy`, not 400."""

    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("service.api.fast_lane.lane_body.LaneBody.add", without_memory)
    monkeypatch.setattr("service.api.fast_lane.byte_bounds.ByteBounds.content", without_memory)
    peer = await api.peer()
    answer = await peer.ask(request(path=path))
    assert (answer.status, orjson.loads(answer.body)["type"]) == (503, "/problems/busy")
    assert await peer.rest() == b""


@pytest.mark.parametrize("path", [PATH, "/other"])
async def test_headers_are_counted(api: Served, path: str) -> None:
    """A request has at most 256 headers: in memory a short one takes twenty times its bytes."""
    fields = [f"a{i}: b" for i in range(253)]  # in addition to host, length and type
    peer = await api.peer()
    assert (await peer.ask(request(VECTOR, *fields, path=path))).status == 200
    peer.send(request(VECTOR, *fields, "c: d", path=path).partition(b"\r\n\r\n")[0][:-3])
    peer.send(b"e: f\r\ng: h\r\ni: j\r\n")
    assert (await peer.answer()).status == 431


async def test_an_endless_head_is_refused(api: Served) -> None:
    """A head without an end is refused."""
    peer = await api.peer()
    peer.send(b"GET / HTTP/1.1\r\n")
    for i in range(3000):
        peer.send(b"x-%d: %b\r\n" % (i, bytes(100).replace(b"\0", b"x")))
        if not i % 100:
            await asyncio.sleep(0)
    assert (await peer.answer()).status == 431


@pytest.mark.parametrize("path", [PATH, "/other"])
async def test_a_head_in_one_write_is_bounded(api: Served, path: str) -> None:
    """A head of 60,000 bytes is served, one of 70,000 is 431, however it is cut."""
    for size, status in ((60_000, 200), (70_000, 431), (200_000, 431)):
        for more in ("Cookie: " + size * "c", "\r\n".join(["a: " + size // 200 * "b"] * 200)):
            for before in (b"", request() * 2):
                peer = await api.peer()
                wire = before + request(VECTOR, more, path=path)
                cut = len(wire) // 2
                for piece in (wire[:cut], wire[cut:]) if size < 100_000 else (wire,):
                    peer.send(piece)
                    await peer.writer.drain()
                for _ in range(before.count(b"POST")):
                    assert (await peer.answer()).status == 200
                assert (await peer.answer()).status == status


CHUNKED = b"POST /other HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_trailers_are_bounded_and_dropped(api: Served) -> None:
    """A trailer is not a header of the request; all trailers together have at most 64 KiB."""
    peer = await api.peer()
    for trailer in (b"Authorization: Bearer x\r\n", b"Host: x\r\n", 6000 * b"a: b\r\n"):
        answer = await peer.ask(CHUNKED + b"1\r\nx\r\n0\r\n" + trailer + b"\r\n")
        assert (answer.status, answer.body) == (200, b"POST /other 1")
        assert "presented" not in answer.headers
    for piece in (b"a: b\r\n" * 12_000, b"a" * 70_000, b"a: " + b"b" * 70_000):
        peer = await api.peer()
        peer.send(CHUNKED + b"1\r\nx\r\n0\r\n")
        for _ in range(3):  # more than the bound, in several packets or in one
            peer.send(piece)
            await asyncio.sleep(0)
        answer = await peer.answer()
        assert (answer.status, answer.headers["connection"]) == (431, "close")


async def test_the_framing_of_a_body_is_bounded(api: Served) -> None:
    """Chunks of one byte are served; extensions larger than the body are not."""
    peer = await api.peer()
    answer = await peer.ask(CHUNKED + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
    assert answer.body == b"POST /other 10000"
    answer = await peer.ask(CHUNKED + b"8\r\n 2345678\r\n" * 12_000 + b"0\r\n\r\n")
    assert answer.body == b"POST /other 96000"
    peer.send(CHUNKED + b"1\r\nx\r\n" * 20_000)
    assert (await peer.answer()).status == 431
    peer = await api.peer()
    peer.send(CHUNKED)
    for _ in range(400):
        peer.send(b"1;" + b"e" * 1000 + b"\r\nx\r\n")
    assert (await peer.answer()).status == 431


async def test_empty_lines_between_requests_are_bounded(api: Served) -> None:
    """A few empty lines before a request are skipped; megabytes of them are refused."""
    peer = await api.peer()
    assert (await peer.ask(b"\r\n" * 100 + request())).status == 200
    for _ in range(50):
        peer.send(b"\r\n" * 10_000)
    assert (await peer.answer()).status == 400


async def test_pipelined_requests_before_a_cut_one_are_answered(api: Served) -> None:
    """Hundreds of requests are answered, although a cut or malformed head follows them."""
    for path in (PATH, "/other"):
        peer = await api.peer()
        wire = request(path=path)
        peer.send(wire * 500 + wire[:30])
        for _ in range(500):
            assert (await peer.answer()).status == 200
        peer.send(wire[30:])
        assert (await peer.answer()).status == 200
        peer.send(wire * 300 + b"no http at all\r\n\r\n")
        statuses = [(await peer.answer()).status for _ in range(301)]
        assert statuses == [200] * 300 + [400]


async def test_pipelined_requests_are_bounded(api: Served) -> None:
    """A thousand requests of a connection may wait for the application; the next one is 429."""
    peer = await api.peer()
    peer.send(request(path="/held"))
    await api.echo.arrived.wait()
    wire = request(b"", path="/o", verb="GET")
    peer.send(wire * 2000)
    await peer.writer.drain()
    await asyncio.sleep(0.05)
    api.echo.release.set()
    statuses = []
    while not statuses or statuses[-1] == 200:
        statuses.append((await peer.answer()).status)
    assert statuses[-1] == 429
    assert 1000 <= len(statuses) <= 1003


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_a_dropped_connection_is_no_error(
    api: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer is written to a dropped connection, even if further requests wait there."""
    peer = await api.peer()
    peer.send(request(path="/held") + request(path="/held"))
    await api.echo.arrived.wait()
    state = api.server.server_state
    (connection,) = state.connections
    await until(lambda: bool(connection.pipeline))
    connection.abort()
    api.echo.release.set()
    await until(lambda: not state.tasks)
    assert "Exception in ASGI application" not in caplog.text


async def test_slow_peers_are_closed() -> None:
    """Silent, slow, stalled and idle connections are closed; one with progress is not."""
    async with served(**QUICK) as api:

        async def drips(head: bytes, piece: bytes) -> tuple[float, bytes]:
            """Return when the connection ended, and the last bytes."""
            peer = await api.peer()
            peer.send(head)
            started = time.monotonic()
            last_bytes = asyncio.create_task(peer.rest())
            while not last_bytes.done():
                if piece:
                    with contextlib.suppress(OSError):
                        peer.send(piece)
                await asyncio.wait([last_bytes], timeout=0.1)
            peer.writer.close()
            return time.monotonic() - started, last_bytes.result()

        lane = request().replace(b"Length: 24", b"Length: 900").removesuffix(VECTOR)
        other = lane.replace(PATH.encode(), b"/other")
        ends = await asyncio.gather(
            drips(b"", b""),
            drips(b"POST / HTTP/1.1\r\n", b""),
            drips(b"POST / HTTP/1.1\r\n", b"a: b\r\n"),
            drips(lane, b""),
            drips(lane, b"1"),
            drips(other, b""),
            drips(other, b"1"),
            drips(request(), b""),
        )
        assert all(0.4 < seconds < 60 for seconds, _ in ends)
        first_lines = [text.split(b"\r\n")[0] for _, text in ends]
        assert first_lines == [b"", *[b"HTTP/1.1 408 Request Timeout"] * 6, b"HTTP/1.1 200 OK"]


async def test_a_peer_that_does_not_read_is_closed() -> None:
    """The unread answers of a client are bounded; at the bound its connection is closed."""
    async with served(**QUICK) as api:
        for wire in (request(path="/large"), request() * 500):
            peer = await api.peer(limit=1024)
            peer.writer.transport.pause_reading()
            with contextlib.suppress(OSError):
                async with asyncio.timeout(DEADLINE):
                    while api.server.server_state.connections:
                        peer.send(wire)
                        await asyncio.sleep(0.05)
                        for connection in api.server.server_state.connections:
                            assert connection.transport.get_write_buffer_size() < 2**26
            peer.writer.transport.abort()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system cannot")
async def test_a_peer_that_leaves_a_few_answers_unread_is_closed() -> None:
    """The connection of a client that leaves a few answers unread is closed after a while."""
    async with served(**QUICK | {"idle_seconds": 3600.0}) as api:
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            peer.connect(("127.0.0.1", api.port))
            peer.sendall(request() * 40)
            await until(lambda: bool(api.server.server_state.connections))
            await until(lambda: not api.server.server_state.connections)


async def test_a_drain_answers_requests_that_arrive_as_it_begins(api: Served) -> None:
    """Requests that arrive as a drain begins are answered, with `Connection: close`."""
    idle, busy, slow = [await api.peer() for _ in range(3)]
    for peer in (idle, busy):
        assert (await peer.ask(request())).status == 200
    slow.send(request(path="/held"))
    async with asyncio.timeout(DEADLINE):
        await api.echo.arrived.wait()
    api.server.should_exit = True
    await until(
        lambda: all(connection.draining for connection in api.server.server_state.connections)
    )
    answer = await busy.ask(request())
    assert (answer.status, answer.way, answer.headers["connection"]) == (200, "lane", "close")
    assert await busy.rest() == b""
    assert await idle.rest() == b""
    api.echo.release.set()
    answer = await slow.answer()
    assert (answer.body, answer.headers["connection"]) == (b"POST /held 24", "close")
    async with asyncio.timeout(DEADLINE):
        await api.serving


async def test_a_turn_is_counted_and_judged_together() -> None:
    """Requests of many connections are judged in one call, and each is counted."""
    async with served() as api:
        scoring, turns = api.echo.lane._scoring, []
        plain = scoring.score_many
        scoring.score_many = lambda asked: turns.append(len(asked)) or plain(asked)
        peers = [await api.peer() for _ in range(20)]
        for peer in peers:
            peer.send(request())
        assert {(await peer.answer()).status for peer in peers} == {200}
        assert sum(turns) == 20
        assert len(turns) < 20
    assert api.counted() == 20


async def test_a_broken_turn_leaves_nobody_waiting(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a whole turn fails, each of its requests gets an error."""

    def fail(asked: object) -> None:
        raise RuntimeError

    peer = await api.peer()
    with monkeypatch.context() as patch:
        patch.setattr(api.echo.lane._scoring, "score_many", fail)
        assert (await peer.ask(request())).status == 500
    assert (await peer.ask(request())).status == 200


async def test_the_lane_is_cheaper_than_a_task(api: Served) -> None:
    """Scoring in the lane takes less time than an application that does nothing.

    This guards against losing the lane unnoticed; benchmarks measure the gain.
    """
    peers = [await api.peer() for _ in range(32)]

    async def processor_seconds(wire: bytes) -> float:
        started = time.process_time()
        for _ in range(20):
            for peer in peers:
                peer.send(wire)
            for peer in peers:
                await peer.answer()
        return time.process_time() - started

    rounds = [
        (await processor_seconds(request()), await processor_seconds(request(path="/")))
        for _ in range(5)
    ]
    # Both times include the clients' own work, which is most of it.
    assert statistics.median(lane / other for lane, other in rounds) < 1.0
