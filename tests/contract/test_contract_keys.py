"""Which key may do what, over a real socket and a real store: all scopes and routes."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import msgspec
import orjson
import pytest
from redis import Redis
from structlog.testing import capture_logs

from service.api import request_bodies
from service.api.app import create_app
from service.api.guard import guarded_routes, needs
from service.domain.api_key import Grant, new_secret
from service.domain.detector_config import DetectorConfig
from service.domain.scope import LEAST_BODY_BYTES, Scope
from service.settings import Settings
from service.store.api_keys import KeyTableState
from tests.contract.running import Running, running
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
VECTORS = {"vectors": [[0, 0, 0]]}
NOTHING = {"event": "1-1", "incident": "i1-1", "label": "1-1"}
# What the design says; the document must say the same.
EXPECTED = {
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): "metrics",
    ("GET", "/v1/keys"): "admin",
    ("POST", "/v1/keys"): "admin",
    ("DELETE", "/v1/keys/{key}"): "admin",
    ("GET", "/v1/audit"): "admin",
    ("POST", "/v1/session"): None,
    ("DELETE", "/v1/session"): None,
    ("GET", "/v1/stream"): "read",
    ("GET", "/v1/detectors"): "read",
    ("PUT", "/v1/detectors/{name}"): "admin",
    ("PATCH", "/v1/detectors/{name}"): "admin",
    ("GET", "/v1/detectors/{name}"): "read",
    ("DELETE", "/v1/detectors/{name}"): "admin",
    ("POST", "/v1/detectors/{name}/retrain"): "admin",
    ("POST", "/v1/detectors/{name}/score"): "score",
    ("POST", "/v1/detectors/{name}/normal"): "ingest",
    ("POST", "/v1/detectors/{name}/feedback"): "ingest or label",
    ("GET", "/v1/detectors/{name}/labels"): "read",
    ("DELETE", "/v1/detectors/{name}/labels/{label}"): "label",
    ("GET", "/v1/detectors/{name}/incidents"): "read",
    ("GET", "/v1/detectors/{name}/incidents/{incident}"): "read",
    ("POST", "/v1/detectors/{name}/incidents/{incident}"): "label",
    ("GET", "/v1/detectors/{name}/history"): "read",
    ("GET", "/v1/detectors/{name}/generations"): "read",
    ("POST", "/v1/detectors/{name}/mute"): "admin",
    ("DELETE", "/v1/detectors/{name}/mute"): "admin",
    ("GET", "/v1/attention"): "read",
    ("GET", "/v1/service"): "read",
    ("GET", "/v1/work"): "read or metrics",
    ("PUT", "/v1/templates/{name}"): "admin",
    ("GET", "/v1/templates/{name}"): "read",
    ("DELETE", "/v1/templates/{name}"): "admin",
    ("GET", "/v1/detectors/{name}/versions"): "read",
    ("POST", "/v1/detectors/{name}/versions"): "admin",
    ("GET", "/v1/detectors/{name}/versions/{number}"): "read",
    ("GET", "/v1/detectors/{name}/versions/{number}/artifact"): "admin",
    ("GET", "/v1/detectors/{name}/versions/{number}/sample"): "read",
    ("PUT", "/v1/detectors/{name}/champion"): "admin",
    ("GET", "/v1/detectors/{name}/events"): "read",
    ("GET", "/v1/detectors/{name}/events/{event}"): "read",
    ("GET", "/v1/detectors/{name}/quarantine"): "read",
    ("GET", "/v1/detectors/{name}/quarantine/{entry}"): "read",
    ("POST", "/v1/detectors/{name}/quarantine/{entry}"): "admin",
    ("POST", "/v1/detectors/{name}/revoke"): "admin",
    ("GET", "/v1/detectors/{name}/drift"): "read",
    ("GET", "/v1/detectors/{name}/audit"): "admin",
    ("GET", "/v2"): None,
    ("GET", "/v2/health/live"): None,
    ("GET", "/v2/health/ready"): None,
    ("POST", "/v2/repository/index"): "score",
    ("GET", "/v2/models/{name}"): "score",
    ("GET", "/v2/models/{name}/versions/{number}"): "score",
    ("GET", "/v2/models/{name}/ready"): "score",
    ("GET", "/v2/models/{name}/versions/{number}/ready"): "score",
    ("POST", "/v2/models/{name}/infer"): "score",
    ("POST", "/v2/models/{name}/versions/{number}/infer"): "score",
}
# What makes a request valid for its route, if anything is needed.
SENT: dict[str, Any] = {
    "/v1/detectors/{name}/score": VECTORS,
    "/v1/detectors/{name}/normal": VECTORS,
    "/v1/detectors/{name}/feedback": {"labels": [{"label": "normal", "vector": [0, 0, 0]}]},
    "/v1/detectors/{name}/champion": {"version": 1},
    "/v1/detectors/{name}/quarantine/{entry}": {"decision": "release"},
    "/v1/detectors/{name}/revoke": {"key": "nobody"},
    "/v1/detectors/{name}/incidents/{incident}": {"decision": "confirm"},
    "/v1/detectors/{name}/mute": {"seconds": 1.0},
    "/v1/keys": {"name": "another", "scopes": ["score"]},
}


def bearer(secret: str) -> dict[str, str]:
    """Return the header with a key."""
    return {"authorization": f"Bearer {secret}"}


async def key(api: Running, scopes: set[str], detectors: set[str] | None, **more: Any) -> str:
    """Store a key as the command line does; return it once this process knows it."""
    secret = new_secret()
    grant = Grant.of(
        secret.encode(),
        "test",
        frozenset(map(Scope, scopes)),
        detectors=None if detectors is None else frozenset(detectors),
        **more,
    )
    await api.parts.stores.api_keys.create(grant)
    await api.parts.access.refresh(api.parts.stores.api_keys)
    return secret


@pytest.fixture
async def guarded(store_url: str, versions: Versions) -> AsyncIterator[Running]:
    """Serve `pump` and `press` at version 1, with keys required; the client is an admin."""
    async with running(store_url, poll_seconds=0.1) as api:
        for name in ("pump", "press"):
            await api.make(name)
            await api.learn(versions[0], name)
            await api.serving(1, name)
        # The first key is an admin: until then the service is open.
        api.http.headers.update(bearer(await key(api, set(Scope), None)))
        yield api


async def ask(
    api: Running, method: str, path: str, detector: str = "pump", **sent: Any
) -> httpx.Response:
    """Send a valid request for a route of a service that has `pump` and `press`."""
    body = SENT.get(path) if method in {"POST", "PUT"} else None
    if "{key}" in path:
        made = await api.http.post("/v1/keys", json=SENT["/v1/keys"])
        path = path.replace("{key}", made.json()["id"])
    path = path.replace("{number}", "1").replace("{entry}", "v9").replace("{event}", "1-1")
    path = path.replace("{incident}", "i1-1").replace("{label}", "1-1")
    body = {"seed": 0} if method == "PATCH" else body
    content = None if body is None else orjson.dumps(body)
    if method in {"POST", "PUT", "PATCH"} and (content is not None or path.endswith("/versions")):
        kind = "application/octet-stream" if path.endswith("/versions") else "application/json"
        sent = sent | {"headers": {"content-type": kind} | sent.get("headers", {})}
    path = path.replace("{name}", detector)
    if path == "/v1/stream":
        async with api.http.stream(method, path, **sent) as endless:
            if endless.is_error:
                await endless.aread()
                return endless
            # the stream never ends, so it cannot be read whole
            return httpx.Response(endless.status_code, text="")
    answer = await api.http.request(method, path, content=content, **sent)
    if (method, path) == ("DELETE", PUMP):
        await api.http.put(PUMP, json={})
    return answer


async def operations(api: Running) -> dict[tuple[str, str], str | None]:
    """Return the scope that each operation has in the OpenAPI document."""
    document = (await api.http.get("/openapi.json")).json()
    return {
        (method.upper(), path): " or ".join(
            requirement["key"][0] for requirement in operation["security"]
        )
        if "security" in operation
        else None
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


async def test_openapi_names_the_scope_of_each_operation(guarded: Running) -> None:
    """The OpenAPI document names the scope of each operation, and its answer without a key."""
    assert await operations(guarded) == EXPECTED
    document = (await guarded.http.get("/openapi.json")).json()
    for (method, path), scope in EXPECTED.items():
        answers = document["paths"][path][method.lower()]["responses"]
        assert {"401", "403", "429"} <= answers.keys() or scope is None


async def test_every_scope_on_every_detector_and_route(guarded: Running) -> None:
    """Without the scope 403; for a detector that the key does not cover 404; otherwise neither.

    A missing detector and one that the key does not cover have the same answer. `ghost` is in the
    keys' lists and does not exist; `press` exists and is in no list.
    """
    keys = {scope: await key(guarded, {scope}, {"pump", "ghost"}) for scope in Scope}
    cells = 0
    for (method, path), needed in (await operations(guarded)).items():
        if needed is None:
            continue
        for scope, name in product(Scope, ("pump", "press", "ghost")):
            if "{name}" not in path and name != "pump":
                continue
            answer = await ask(guarded, method, path, name, headers=bearer(keys[scope]))
            where, cells = (method, path, scope, name, answer.text[:200]), cells + 1
            whole = path in {"/metrics", "/v1/audit", "/v1/service", "/v1/work"}
            whole = whole or path.startswith("/v1/keys")
            if scope not in needed.split(" or ") or whole:
                assert answer.status_code == 403, where
                # An error of the Open Inference Protocol is one text.
                named = path.startswith("/v2") or answer.json()["scope"] in needed.split(" or ")
                assert named, where
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
            elif name == "press" or (name == "ghost" and (method, path) not in PUTS):
                # 409: the detector of this name was deleted just now, so the model has no version.
                unknown = {404, 409} if path.startswith("/v2") else {404}
                assert answer.status_code in unknown, where
                assert path.startswith(("/v2", "/v1/templates")) or answer.json() == {
                    "type": "/problems/unknown-detector",
                    "title": "Unknown detector",
                    "status": 404,
                    "detail": "There is no such detector.",
                }, where
            else:
                assert answer.status_code not in {401, 403, 500}, where
                if answer.status_code == 404 and not path.startswith("/v2"):
                    assert answer.json()["type"] == "/problems/not-found", where
            if name == "ghost":
                await guarded.http.delete("/v1/detectors/ghost")
    # Of 48 operations that need a key, 11 are not about one detector.
    assert cells == len(Scope) * (3 * 40 + 11)


PUTS = {("PUT", "/v1/detectors/{name}"), ("PUT", "/v1/templates/{name}")}


async def test_a_key_without_a_list_covers_every_detector(guarded: Running) -> None:
    """A key without a list is valid for every detector and the service; its scopes still count."""
    keys = {scope: await key(guarded, {scope}, None) for scope in Scope}
    for (method, path), needed in (await operations(guarded)).items():
        for scope in Scope:
            answer = await ask(guarded, method, path, "press", headers=bearer(keys[scope]))
            refused = needed is not None and scope not in needed.split(" or ")
            assert (answer.status_code == 403) == refused, (method, path, scope, answer.text)
        if method == "DELETE":
            await guarded.http.put("/v1/detectors/press", json={})


async def test_no_key_and_wrong_keys_are_401_with_a_challenge(guarded: Running) -> None:
    """No key or a wrong key is 401 with a challenge, on every route that needs one."""
    secret = await key(guarded, set(Scope), None)
    wrong = (
        {},
        bearer(secret[:-1]),
        bearer(secret + "x"),
        bearer(new_secret()),
        {"authorization": "Bearer"},
        bearer("x" * 1000),
        {"authorization": f"Basic {secret}"},
        {"authorization": secret},
        {"x-api-key": "x"},
    )
    open_ones = []
    async with httpx.AsyncClient(base_url=guarded.http.base_url, trust_env=False) as http:
        for method, path in EXPECTED:
            answer = await http.request(
                method, path.format(name="pump", number=1, entry=1, key=1, **NOTHING)
            )
            if answer.status_code != 401:
                open_ones.append(path)
        assert set(open_ones) == {path for (_, path), scope in EXPECTED.items() if scope is None}
        for path in ("/docs", "/openapi.json"):
            assert (await http.get(path)).status_code == 200
        for headers in wrong:
            answer = await http.get("/v1/detectors", headers=headers)
            assert answer.status_code == 401, headers
            assert answer.headers["content-type"] == "application/problem+json"
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith('Bearer realm="anamnesis"')
            assert ("invalid_token" in challenge) == bool(headers)
            assert secret not in answer.text
        for headers in (
            bearer(secret),
            {"x-api-key": secret},
            {"authorization": f"bearer {secret}"},
            {"authorization": "Basic cHJveHk6cHJveHk=", "x-api-key": secret},  # a proxy's own
        ):
            assert (await http.get("/v1/detectors", headers=headers)).status_code == 200
        twice = [("authorization", f"Bearer {secret}")] * 2
        assert (await http.get("/v1/detectors", headers=twice)).status_code == 401


async def test_lists_show_only_the_detectors_of_the_key(guarded: Running) -> None:
    """A list shows only the detectors that the key covers."""
    secret = await key(guarded, {"read"}, {"pump"})
    listed = (await guarded.http.get("/v1/detectors", headers=bearer(secret))).json()
    assert [detector["name"] for detector in listed["detectors"]] == ["pump"]
    everything = (await guarded.http.get("/v1/detectors")).json()["detectors"]
    assert [detector["name"] for detector in everything] == ["press", "pump"]


async def test_a_key_is_shown_once_works_and_is_revoked(guarded: Running) -> None:
    """A key is shown once, listed without its secret, works at once, and is revoked within 2 s."""
    asked = {"name": "press 7", "scopes": ["score"], "detectors": ["pump"]}
    made = await guarded.http.post("/v1/keys", json=asked)
    assert made.status_code == 201
    secret, identity = made.json().pop("key"), made.json()["id"]
    listing = await guarded.http.get("/v1/keys")
    assert secret not in listing.text
    (listed,) = [key for key in listing.json()["keys"] if key["id"] == identity]
    assert asked.items() <= listed.items()
    mine = {"headers": bearer(secret), "json": VECTORS}
    async with running_too(guarded) as other:

        async def scored() -> bool:
            return (await other.http.post(f"{PUMP}/score", **mine)).status_code == 200

        await until(scored)
        assert (await guarded.http.post(f"{PUMP}/score", **mine)).status_code == 200
        gone = await guarded.http.delete(f"/v1/keys/{identity}")
        assert gone.status_code == 204
        assert (await guarded.http.post(f"{PUMP}/score", **mine)).status_code == 401

        async def refused() -> bool:
            return (await other.http.post(f"{PUMP}/score", **mine)).status_code == 401

        await until(refused)
    assert (await guarded.http.delete(f"/v1/keys/{identity}")).status_code == 404
    for odd in ("revision", "%20", "x" * 300):
        assert (await guarded.http.delete(f"/v1/keys/{odd}")).status_code == 404
    for bad in ({}, {"name": "x"}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]},
                asked | {"detectors": ["/"]}, asked | {"max_body_bytes": 1},
                asked | {"requests_per_second": 0}, asked | {"more": 1}):  # fmt: skip
        assert (await guarded.http.post("/v1/keys", json=bad)).status_code == 422, bad


async def test_a_stream_ends_once_its_key_is_revoked(guarded: Running) -> None:
    """An open stream ends soon after its key is revoked; a valid key's stream stays open."""
    made = [
        (await guarded.http.post("/v1/keys", json={"name": name, "scopes": ["read"]})).json()
        for name in ("revoked", "valid")
    ]
    streams = [
        guarded.http.stream("GET", "/v1/stream", timeout=60, headers=bearer(stream["key"]))
        for stream in made
    ]
    async with streams[0] as ending, streams[1] as staying:
        assert ending.status_code == staying.status_code == 200
        await guarded.http.delete(f"/v1/keys/{made[0]['id']}")
        await ending.aread()
        assert guarded.parts.changes.following == 1


async def test_keys_have_an_audit_trail(guarded: Running) -> None:
    """The audit trail of keys says who made and revoked which key, and has no secret."""
    asked = {"name": "press/7 ü", "scopes": ["score"], "detectors": ["pump"]}
    made = (await guarded.http.post("/v1/keys", json=asked)).json()
    await guarded.http.delete(f"/v1/keys/{made['id']}")
    assert (await guarded.http.delete(f"/v1/keys/{made['id']}")).status_code == 404
    answer = await guarded.http.get("/v1/audit")
    first, create, revoke = answer.json()["audit"]
    assert (first["action"], first["who"]) == ("key created", "")
    assert (create["action"], create["key"], create["from"]) == ("key created", made["id"], None)
    assert create["to"] == asked | {"requests_per_second": None, "max_body_bytes": None}
    assert (revoke["action"], revoke["key"]) == ("key revoked", made["id"])
    assert (revoke["from"], revoke["to"]) == ("active", "revoked")
    assert create["who"] == revoke["who"] == f"key:{first['key']}"
    assert answer.json()["broken"] is None
    assert made["key"] not in answer.text
    assert (await guarded.http.get("/v1/audit?after=2")).json()["audit"] == [revoke]
    assert (await guarded.http.get("/v1/audit?after=x")).status_code == 422


def running_too(api: Running, **settings: Any) -> Any:
    """Serve the same store from another application."""
    return running(api.parts.settings.redis_url, poll_seconds=0.1, **settings)


async def test_a_first_key_made_over_http_can_make_others(store_url: str) -> None:
    """Without keys everybody may make one; a first key that cannot make others is refused."""
    async with running(store_url, poll_seconds=0.1) as api:
        refused = await api.http.post("/v1/keys", json={"name": "a", "scopes": ["read"]})
        assert refused.status_code == 409
        made = await api.http.post("/v1/keys", json={"name": "a", "scopes": ["admin"]})
        assert made.status_code == 201
        assert (await api.http.get("/v1/keys")).status_code == 401
        secret = bearer(made.json()["key"])
        assert (await api.http.get("/v1/keys", headers=secret)).status_code == 200
        # Without its last key the service stays closed.
        gone = await api.http.delete(f"/v1/keys/{made.json()['id']}", headers=secret)
        assert gone.status_code == 204
        assert (await api.http.get("/v1/keys")).status_code == 401


async def test_rate_and_body_size_of_a_key_are_enforced(guarded: Running) -> None:
    """Above its rate a key gets 429 with Retry-After on both ways, and above its body size 413."""
    secret = await key(guarded, {"score", "read"}, None, requests_per_second=2.0)
    mine = {"headers": bearer(secret), "json": VECTORS}
    answers = [await guarded.http.post(f"{PUMP}/score", **mine) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[-1].json()["type"] == "/problems/too-many-requests"
    wait = int(answers[-1].headers["retry-after"])
    assert wait == 1
    assert (await guarded.http.get(PUMP, headers=bearer(secret))).status_code == 429
    assert (await guarded.http.get(PUMP)).status_code == 200, "others are not held up"

    async def key_has_rate_again() -> bool:
        return (await guarded.http.get(PUMP, headers=bearer(secret))).status_code == 200

    await until(key_has_rate_again)
    kind = {"content-type": "application/json"}
    sized = kind | bearer(await key(guarded, {"score"}, None, max_body_bytes=LEAST_BODY_BYTES))
    large = b" " * LEAST_BODY_BYTES + orjson.dumps(VECTORS)

    async def chunks() -> AsyncIterator[bytes]:
        yield large

    for content in (large, chunks()):
        answer = await guarded.http.post(f"{PUMP}/score", headers=sized, content=content)
        assert answer.status_code == 413, answer.text
    answer = await guarded.http.post(f"{PUMP}/score", headers=kind, content=large)
    assert answer.status_code == 200


async def test_keys_in_memory_stay_valid_without_the_store(
    own_store: Any, versions: Versions
) -> None:
    """Keys in memory stay valid without the store; a process that starts then answers 503."""
    async with running(own_store.url, poll_seconds=0.1) as api:
        await api.make()
        await api.serve(versions[0])
        secret = await key(api, {"score"}, {"pump"})
        mine = {"headers": bearer(secret), "json": VECTORS}
        own_store.kill()
        assert (await api.http.post(f"{PUMP}/score", **mine)).status_code == 200
        assert (await api.http.post(f"{PUMP}/score", json=VECTORS)).status_code == 401
        async with running(own_store.url, poll_seconds=0.1) as late:
            for headers in ({}, bearer(secret)):
                answer = await late.http.post(f"{PUMP}/score", headers=headers, json=VECTORS)
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
        own_store.start()
        async with running(own_store.url, poll_seconds=0.1) as late:
            assert (await late.http.post(f"{PUMP}/score", **mine)).status_code == 200
            assert (await late.http.post(f"{PUMP}/score", json=VECTORS)).status_code == 401


async def test_an_emptied_store_admits_nobody_new(own_store: Any) -> None:
    """Keys that the store lost stay valid until the next change of keys; nobody else gets in."""
    async with running(own_store.url, poll_seconds=0.05) as api:
        admin = await key(api, set(Scope), None)
        other = await key(api, {"read"}, None)
        with Redis.from_url(own_store.url) as store:
            store.flushall()
        access = api.parts.access

        async def loss_is_noticed() -> bool:
            return access._older_state == KeyTableState(0, "")

        await until(loss_is_noticed)
        for secret in (admin, other):
            assert (await api.http.get("/v1/detectors", headers=bearer(secret))).status_code == 200
        assert (await api.http.get("/v1/detectors")).status_code == 401
        made = await api.http.post(
            "/v1/keys", headers=bearer(admin), json={"name": "b", "scopes": ["read"]}
        )
        assert made.status_code == 201
        assert (await api.http.get("/v1/detectors", headers=bearer(other))).status_code == 401
        now = bearer(made.json()["key"])
        assert (await api.http.get("/v1/detectors", headers=now)).status_code == 200


async def test_keys_from_files_work_with_and_without_the_store(
    own_store: Any, tmp_path: Any
) -> None:
    """Keys from files work with and without the store, and require keys from the start on."""
    admin, metrics = tmp_path / "admin", tmp_path / "metrics"
    admin.write_text("a" * 40 + "\n")
    metrics.write_text("m" * 40)
    files = {"admin_key_file": admin, "metrics_key_file": metrics}
    own_store.kill()
    async with running(own_store.url, poll_seconds=0.1, **files) as api:
        assert (await api.http.get("/metrics")).status_code == 401
        assert (await api.http.get("/metrics", headers=bearer("m" * 40))).status_code == 200
        assert (await api.http.get("/metrics", headers=bearer("a" * 40))).status_code == 200
        assert (await api.http.get("/v1/keys", headers=bearer("m" * 40))).status_code == 403
        assert (await api.http.get("/v1/keys", headers=bearer("a" * 40))).status_code == 503
    admin.write_text("short")
    with pytest.raises(ValueError, match="at least 32"):
        create_app(Settings(redis_url=own_store.url, **files))


def test_a_process_with_an_unguarded_route_does_not_start() -> None:
    """A process does not start if a route declares no scope."""
    app = create_app(Settings(redis_url="unix:///nowhere"))
    assert sum(1 for _ in guarded_routes(app)) == len(EXPECTED) + 8  # the document, and the pages
    app.get("/open")(lambda: None)
    with pytest.raises(TypeError, match="/open"):
        list(guarded_routes(app))


def test_a_route_with_two_guards_is_refused() -> None:
    """A route with two guards is refused: they could contradict each other."""
    app = create_app(Settings(redis_url="unix:///nowhere"))
    app.get("/two", dependencies=[needs(Scope.READ), needs(Scope.ADMIN)])(lambda: None)
    with pytest.raises(TypeError, match="/two"):
        list(guarded_routes(app))


async def test_a_reachable_service_without_keys_is_closed(store_url: str) -> None:
    """Without keys and without `insecure`, a service that others can reach is closed."""
    async with running(store_url, host="0.0.0.0") as api:
        assert (await api.http.get("/v1/detectors")).status_code == 401
    async with running(store_url, host="0.0.0.0", insecure=True) as api:
        assert (await api.http.get("/v1/detectors")).status_code == 200
        await key(api, {"admin"}, None)
        assert (await api.http.get("/v1/detectors")).status_code == 401
    for insecure, status in ((True, 200), (False, 503)):
        async with running("unix:///nowhere", insecure=insecure) as api:
            assert (await api.http.get("/metrics")).status_code == status


async def test_the_fast_lane_serves_requests_with_keys(guarded: Running) -> None:
    """The fast lane serves requests with keys too: they never reach the application's routes."""
    secret = await key(guarded, {"score"}, {"pump"})
    seen = []
    scoring = guarded.parts.scoring
    original = scoring.score
    scoring.score = lambda asked: seen.append(asked) or original(asked)  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(
                guarded.http.post(f"{PUMP}/score", headers=bearer(secret), json=VECTORS)
            )
    assert not seen
    await guarded.http.post(f"{PUMP}/score?explain=1", headers=bearer(secret), json=VECTORS)
    assert len(seen) == 1


def test_no_route_takes_a_url_or_a_path() -> None:
    """No parameter and no field is a URL or a path: a client cannot make the service open one."""
    document = create_app(Settings(redis_url="unix:///nowhere")).openapi()
    names = set(fields(DetectorConfig().to_dict()))
    for kind in (
        request_bodies.NewKey,
        request_bodies.RetrainOptions,
        request_bodies.Promote,
        request_bodies.Decide,
        request_bodies.NewLabel,
        request_bodies.Revoke,
    ):
        names |= {field.name for field in msgspec.structs.fields(kind)}
    for operations in document["paths"].values():
        for operation in operations.values():
            asked = operation.get("parameters", []), operation.get("requestBody", {})
            names |= {parameter["name"] for parameter in asked[0]} | set(fields(asked))
            assert not re.search(r"'format': '(uri|url|path)", str(asked)), asked
    assert {"name", "vectors", "threshold", "scopes", "If-Match"} <= names, "the document was read"
    telling = r"ur[il]\b|href|path|file|folder|dir\b|host|addr|callback|webhook|bucket"
    assert not {name for name in names if re.search(telling, name.lower())}


def fields(document: Any) -> Iterator[str]:
    """Yield the names of all fields in a JSON document."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield name
            yield from fields(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from fields(value)


async def test_a_replaced_key_file_is_read_without_a_restart(
    store_url: str, tmp_path: Path
) -> None:
    """The new key is valid and the old one is not; a file that holds no key changes nothing."""
    file, old, new = tmp_path / "admin", "a" * 40, "b" * 40
    file.write_text(old)
    async with running(store_url, poll_seconds=0.05, admin_key_file=file) as api:

        async def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return (await api.http.get("/v1/keys", headers=headers)).status_code

        assert (await status(old), await status(new)) == (200, 401)
        with capture_logs() as lines:
            file.write_text("short")
            await until(lambda: any("not read again" in line["event"] for line in lines))
        assert (await status(old), await status(new)) == (200, 401)
        file.write_text(new)

        async def replaced() -> bool:
            return (await status(old), await status(new)) == (401, 200)

        await until(replaced)
