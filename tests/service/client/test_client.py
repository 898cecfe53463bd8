"""The HTTP client: what it sends and repeats, and how it reports errors."""

import asyncio
import contextlib
import gc
import io
import socket
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service.client import AsyncClient, Client, Refused, Unreachable, Unusable
from service.client.address import address_of
from service.client.transport import Deadline

X = np.array([[1.0, 2.0]])
ACCEPTED = {"batch_id": "1", "accepted": 1, "quarantined": 0, "duplicate": 0, "buffered": 1}


def _client(handler: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://service", transport=httpx.MockTransport(handler))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_vectors_are_sent_as_npy():
    """A matrix of any type is sent as NPY with float32."""

    def handler(request):
        assert request.headers["content-type"] == "application/x-npy"
        sent = np.load(io.BytesIO(request.content))
        assert sent.dtype == np.dtype("<f4")
        return httpx.Response(200, json={"scores": sent.sum(axis=1).tolist()})

    assert _client(handler).score("a", X) == {"scores": [3.0]}


def test_learn_with_a_key_is_repeated_with_the_same_key():
    """If the service has no room for a batch, it is sent again with the same key."""
    requests = []

    def handler(request):
        requests.append(request.headers["idempotency-key"])
        if len(requests) == 1:
            return httpx.Response(429, headers={"retry-after": "1"}, json={"detail": "full"})
        if len(requests) == 2:
            raise httpx.ReadError("reset")
        return httpx.Response(202, json=ACCEPTED)

    assert _client(handler).learn("a", X, key="k") == ACCEPTED
    assert requests == ["k", "k", "k"]


def test_learn_without_a_key_is_tried_once():
    """Without a key a broken request is not repeated, because it may be stored."""
    requests = []

    def handler(request):
        requests.append(request)
        raise httpx.ReadError("reset")

    with pytest.raises(Unreachable, match="broke"):
        _client(handler).learn("a", X)
    assert len(requests) == 1


def test_a_refusal_has_the_problem_with_its_place():
    """The error has the problem's detail as message, and row and column."""
    problem = {"title": "Bad vectors", "detail": "row 3 is ragged", "row": 3}
    client = _client(lambda _: httpx.Response(422, json=problem))
    with pytest.raises(Refused, match="row 3 is ragged") as refused:
        client.score("a", X)
    assert (refused.value.status, refused.value.row, refused.value.column) == (422, 3, None)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("https://host/anamnesis/v1", "https://host/anamnesis"),
        (" http://host\n", "http://host"),
        ("http://v1", "http://v1"),
    ],
)
def test_the_address_of_the_api_is_that_of_the_service(given: str, used: str):
    """`anamnesis up` shows the API's address with `/v1`; the client takes it, too."""
    assert address_of(given) == used


def test_an_answer_of_another_program_is_a_refusal():
    """An answer from another program is an error of the client, not a traceback."""
    client = _client(lambda _: httpx.Response(200, text="<html>"))
    with pytest.raises(Refused, match="is not this service"):
        client.health()


def test_a_refused_connection_is_unreachable_at_once():
    """A refused connection is reported at once, without repetition."""
    with pytest.raises(Unreachable, match="no service at"):
        Client("http://127.0.0.1:1").health()


def test_promote_sends_if_match():
    """The expected generation is sent in If-Match, as an ETag."""

    def handler(request):
        assert request.url.raw_path == b"/v1/detectors/a%2Fb/champion"
        assert request.headers["if-match"] == '"4"'
        return httpx.Response(200, json={"champion": 2, "generation": 5})

    assert _client(handler).promote("a/b", 2, generation=4)["generation"] == 5


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_an_id_never_names_another_resource(id_: str):
    """An id that changes the path is refused: `labels/..` would be the detector's own path."""
    requests: list[httpx.Request] = []
    client = _client(lambda request: requests.append(request) or httpx.Response(204))
    for call in (
        lambda: client.delete_label("pump", id_),
        lambda: client.delete_template(id_),
        lambda: client.revoke_key(id_),
        lambda: client.delete(id_),
    ):
        with pytest.raises(Unusable):
            call()
    assert not requests


@pytest.mark.parametrize("fields", [{}, {"sources": ["press"]}])
@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [(1, 2)], [np.array([1.0, 2.0])]])
def test_rows_as_lists_are_a_matrix(rows: Any, fields: dict[str, Any]):
    """Lists of numbers are sent as a matrix, mappings as records."""

    def handler(request):
        if fields:
            assert orjson.loads(request.content) == {"vectors": [[1.0, 2.0]], **fields}
        else:
            assert np.load(io.BytesIO(request.content)).tolist() == [[1.0, 2.0]]
        return httpx.Response(200, json={"scores": [1.0]})

    assert _client(handler).score("a", rows, **fields) == {"scores": [1.0]}


def test_an_infinite_number_is_not_sent_as_a_missing_one():
    """JSON has no infinite number; null would mean a missing value."""
    client = _client(lambda _: httpx.Response(500))
    for value in (np.inf, 1e300):
        with pytest.raises(Unusable, match="infinite"):
            client.score("a", np.array([[value, 1.0]]), sources=["press"])


def test_a_key_that_no_header_can_carry_is_refused_at_once():
    """A request that HTTP cannot carry is not repeated, and the error says so."""

    def handler(request):
        raise httpx.LocalProtocolError("Illegal header value b'a\\n'", request=request)

    with pytest.raises(Unusable, match="cannot be sent: Illegal header"):
        _client(handler).learn("a", X, key="a\n")


def test_a_forked_process_connects_anew(monkeypatch: pytest.MonkeyPatch):
    """After a fork the child opens connections of its own, and gets no answer to its parent."""
    client = _client(lambda _: httpx.Response(200, json={}))
    parent = client.http
    client.health()
    assert client.http is parent
    monkeypatch.setattr("service.client.connection.os.getpid", lambda: -1)
    client.health()
    child = client.http
    client.health()
    assert child is not parent
    assert client.http is child


class Clock:
    """A clock that only pauses and requests move, seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the client."""
    own = Clock()
    monkeypatch.setattr("service.client.transport.time", own)
    monkeypatch.setattr("time.sleep", own.wait)
    return own


def test_a_call_that_timed_out_is_not_sent_again(clock: Clock):
    """A service that does not answer is asked once, and the call ends with the timeout."""
    requests = []

    def handler(request):
        requests.append(request)
        clock.wait(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("silent", request=request)

    with pytest.raises(Unreachable, match="took too long"):
        _client(handler).score("a", X)
    assert (len(requests), clock.now) == (1, 30.0)


def test_an_infinite_timeout_is_accepted():
    """An infinite timeout becomes the longest one that a socket accepts."""
    with socket.socket() as waiting:
        waiting.settimeout(Deadline(float("inf")).left())


def test_a_call_ends_with_its_timeout_however_often_it_is_repeated(clock: Clock):
    """A service that always asks to wait is asked until the timeout, and no longer."""
    requests = []

    def handler(request):
        requests.append(clock.now)
        return httpx.Response(503, headers={"retry-after": "7"}, json={"detail": "busy"})

    with pytest.raises(Refused, match="busy"):
        _client(handler).score("a", X)
    assert requests == [0.0, 7.0, 14.0, 21.0, 28.0]


def test_a_repeated_call_has_the_rest_of_the_time(clock: Clock):
    """The second try may take what the first try and the pause left of the timeout."""
    timeouts = []

    def handler(request):
        timeouts.append(request.extensions["timeout"]["read"])
        if len(timeouts) == 1:
            clock.wait(10.0)
            return httpx.Response(503, headers={"retry-after": "5"}, json={})
        return httpx.Response(200, json={"scores": []})

    _client(handler).score("a", X)
    assert timeouts == [30.0, 15.0]


def test_a_retraining_has_its_own_time(clock: Clock):
    """`retrain` waits longer than the client's timeout."""

    def handler(request):
        clock.wait(100.0)
        assert request.extensions["timeout"]["read"] == 120 + 30
        return httpx.Response(202, json={})

    assert _client(handler).retrain("a", wait=120) is None


@pytest.mark.anyio
async def test_cancelled_calls_give_their_connections_back():
    """After many cancelled calls the client can still use all of its connections."""
    slots = 100  # the connections of a client
    arrived, everyone = 0, asyncio.Event()
    everyone.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                arrived += 1
                if arrived == slots:
                    everyone.set()
                await everyone.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AsyncClient(f"http://127.0.0.1:{port}", timeout=20) as client:
        for steps in [*range(60)] * 3:  # of the loop before the call is cancelled
            call = asyncio.create_task(client.health())
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
        arrived, _ = 0, everyone.clear()
        await asyncio.gather(*(client.health() for _ in range(slots)))


@pytest.mark.anyio
async def test_an_error_of_a_cancelled_call_is_not_logged_as_lost():
    """A connection may break while its call is cancelled; the caller only sees the cancellation."""
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))

    async def handler(_: httpx.Request) -> httpx.Response:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise httpx.ReadError("broken")

    async with AsyncClient("http://service", transport=httpx.MockTransport(handler)) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.health()
    gc.collect()
    await asyncio.sleep(0)
    assert lost == []
