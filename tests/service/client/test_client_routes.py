"""Both clients reach every route, and differ only in waiting."""

import inspect
import re
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.app import create_app
from service.client import AsyncClient, Client, Refused, Unreachable
from service.settings import Settings

DOCUMENT = create_app(Settings(redis_url="unix:///nowhere")).openapi()
# Other clients use this protocol.
FOREIGN = "/v2"
# For pages in a browser: a cookie, and server-sent events.
BROWSER = {"/v1/session", "/v1/stream"}
GIVEN: dict[str, Any] = {
    "name": "pump", "number": 3, "entry": "e-1", "key_id": "k-1", "vectors": np.zeros((1, 2)),
    "config": {}, "labels": [], "decision": "release", "artifact": b"x", "scopes": ["score"],
    "incident": "i-1", "event": "1-0", "label": "normal", "seconds": 60, "label_id": "1-0",
    "changes": {},
}  # fmt: skip
METHODS = sorted(
    name
    for name, method in inspect.getmembers(Client, inspect.isfunction)
    if not name.startswith("_") and name not in {"send", "close"}
)


def arguments(method: Any) -> list[Any]:
    """Return a value for each parameter that has no default."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return [
        GIVEN[parameter.name]
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def template(method: str, path: str) -> tuple[str, str] | None:
    """Return the operation of the OpenAPI document for a request."""
    for pattern, operations in DOCUMENT["paths"].items():
        if method.lower() in operations and re.fullmatch(
            re.sub(r"\{\w+\}", "[^/]+", pattern), path
        ):
            return method, pattern
    return None


class RecordingService:
    """A service that answers everything and records the requests."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        route = template(request.method, request.url.path)
        assert route is not None, (request.method, request.url.path)
        lists = (
            "detectors", "versions", "events", "quarantine", "keys", "audit", "items", "incidents",
            "labels", "generations", "buckets",
        )  # fmt: skip
        return httpx.Response(
            200, json={"next": None, "last_retraining": {}, **{name: [] for name in lists}}
        )


def called() -> tuple[RecordingService, dict[str, httpx.Request]]:
    """Call every method of the client once; return the requests of each."""
    service = RecordingService()
    request_of = {}
    with Client("http://service", transport=httpx.MockTransport(service)) as client:
        for name in METHODS:
            method = getattr(client, name)
            method(*arguments(getattr(Client, name)))
            request_of[name] = service.requests[-1]
        client.audit("pump")
    return service, request_of


def test_every_route_has_a_method():
    """The client has a method for every route of the OpenAPI document."""
    service, _ = called()
    reached = {template(request.method, request.url.path) for request in service.requests}
    described = {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
        if not path.startswith(FOREIGN) and path not in BROWSER
    }
    assert described - reached == set()


OPTIONS: dict[str, dict[str, Any]] = {
    "detectors": {"limit": 1, "after": "a", "recent": True},
    "create": {"new": True, "generation": 3},
    "change": {"generation": 3},
    "delete": {"generation": 3},
    "create_template": {"new": True},
    "score": {"version": 1, "explain": 1, "record": False},
    "learn": {"key": "k"},
    "feedback": {"key": "k"},
    "versions": {"limit": 1, "after": 3},
    "sample": {"n": 1, "seed": 1},
    "promote": {"generation": 3, "why": "x"},
    "generations": {"limit": 1, "after": 3},
    "quarantine": {"limit": 1, "after": "1-0"},
    "events": {"limit": 1, "after": "1-0", "incident": "i-1", "from": 0, "to": 1},
    "incidents": {"limit": 1, "after": "i-1", "state": "open", "from": 0, "to": 1},
    "labels": {"limit": 1, "after": "1-0"},
    "keys": {"limit": 1, "after": "k"},
    "history": {"from": 0, "to": 1, "points": 2},
}
# Parameters of tables, which the client does not send; `vouch` is in its body; and the client asks
# for the largest pages of an audit trail.
NOT_SENT = {"time", "source", "id", "drop", "extra", "vouch"}


def test_every_parameter_has_an_option():
    """The client can send every parameter of the query, and every header, that a route has."""
    service = RecordingService()
    sent: dict[tuple[str, str], set[str]] = {}
    with Client("http://service", transport=httpx.MockTransport(service)) as client:
        for name in METHODS:
            given = arguments(getattr(Client, name))
            getattr(client, name)(*given, **OPTIONS.get(name, {}))
            request = service.requests[-1]
            route = template(request.method, request.url.path)
            assert route is not None
            names = {*request.url.params, *request.headers}
            sent.setdefault(route, set()).update(names)
    missing = {
        (method, path, parameter["name"])
        for (method, path), names in sent.items()
        for parameter in DOCUMENT["paths"][path][method.lower()].get("parameters", ())
        if parameter["in"] != "path" and parameter["name"] not in NOT_SENT
        if parameter["name"].lower() not in names and not path.endswith("audit")
    }
    assert not missing


@pytest.mark.parametrize("first", [503, None])
def test_a_repeated_delete_may_find_nothing(first: int | None, monkeypatch: pytest.MonkeyPatch):
    """A DELETE whose answer was lost succeeds when its repetition finds nothing left."""
    monkeypatch.setattr("service.client.transport._LONGEST_PAUSE_SECONDS", 0.0)
    answers = [first, 404, 404]

    def service(request: httpx.Request) -> httpx.Response:
        status = answers.pop(0)
        if status is None:
            raise httpx.ReadError("broken", request=request)
        return httpx.Response(status, json={"detail": "There is no such detector."})

    with Client("http://service", transport=httpx.MockTransport(service)) as client:
        client.delete("pump")
        with pytest.raises(Refused):
            client.delete("pump")


@pytest.mark.anyio
async def test_the_async_client_sends_the_same_requests():
    """AsyncClient has the same methods and signatures, and sends the same requests."""
    _, expected = called()
    service = RecordingService()
    async with AsyncClient("http://service", transport=httpx.MockTransport(service)) as client:
        for name in METHODS:
            method, async_method = getattr(Client, name), getattr(AsyncClient, name)
            assert inspect.signature(method) == inspect.signature(async_method), name
            await getattr(client, name)(*arguments(method))
            request, same = service.requests[-1], expected[name]
            assert (request.method, request.url, request.content) == (
                same.method, same.url, same.content,
            )  # fmt: skip


@pytest.mark.anyio
async def test_the_async_client_repeats_and_gives_up():
    """The client repeats a request that may be repeated, after the pause that the service names."""
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        if len(paths) < 3:
            return httpx.Response(503, headers={"retry-after": "0"}, json={"detail": "away"})
        return httpx.Response(200, json={"status": "ready"})

    async with AsyncClient("http://service", transport=httpx.MockTransport(handler)) as client:
        assert await client.health() == {"status": "ready"}
        assert len(paths) == 3
        paths.clear()
        with pytest.raises(Refused, match="away"):
            await client.retrain("pump")
        assert len(paths) == 1


@pytest.mark.anyio
async def test_the_async_client_reports_a_refused_connection():
    """A refused connection is Unreachable at once."""
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(Unreachable, match="no service at"):
            await client.health()
