"""Health, metrics, documentation, errors, and service without the store."""

import asyncio
import signal
import time
from typing import Any

import numpy as np
import pytest

from service.api.app import create_app
from service.settings import Settings
from service.store.connection import DEADLINE, WeakStore
from tests.contract.running import Running, running
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
ZEROS = {"vectors": [[0, 0, 0]]}


async def test_a_process_with_a_store_is_alive_and_ready(api: Running) -> None:
    """A process with a store is live and ready; `/` leads to the documentation."""
    assert (await api.http.get("/healthz")).json() == {"status": "ok"}
    answer = (await api.http.get("/readyz")).json()
    assert (answer["status"], answer["why"]) == ("degraded", "no worker has reported")
    await api.parts.stores.leases.beat("w1")

    async def ready() -> bool:
        answer = await api.http.get("/readyz")
        return (answer.status_code, answer.json()["status"]) == (200, "ready")

    await until(ready)
    root = await api.http.get("/")
    assert (root.status_code, root.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await api.http.get("/docs")).status_code == 200


async def test_head_of_a_stream_ends(api: Running) -> None:
    """`HEAD` of a stream answers as `GET` does, without a body, and leaves no stream open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    for path in ("/v1/stream", "/healthz"):
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(60):
        heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(2)]
    writer.close()
    assert all(head.startswith(b"HTTP/1.1 200 ") for head in heads)
    assert b"text/event-stream" in heads[0]
    await until(lambda: api.parts.changes.following == 0)


async def test_unknown_paths_are_404_and_methods_405(api: Running) -> None:
    """Other paths are 404, other methods 405 with Allow; both are problems."""
    for path in ("/nothing", "/v1", "/v1/detectors/", "/v1/detectors/a/b", "/v1/detectors/a%2Fb"):
        answer = await api.http.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
    answer = await api.http.request("POST", PUMP)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, PUT, PATCH, DELETE"
    assert answer.json()["status"] == 405
    answer = await api.http.get(f"{PUMP}/score")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_every_get_route_has_head(api: Running) -> None:
    """Every route with GET has HEAD, and no other route has it."""
    for path in ("/healthz", "/readyz", "/metrics", "/v1/detectors"):
        assert (await api.http.head(path)).status_code == 200, path
    assert (await api.http.head(f"{PUMP}/score")).status_code == 405


async def test_encoded_bodies_are_refused(api: Running) -> None:
    """A compressed body is never taken for vectors."""
    await api.make()
    encoded = {"content-encoding": "gzip"}
    for route in ("score", "normal"):
        answer = await api.http.post(
            f"{PUMP}/{route}", json={"vectors": [[1, 2, 3]]}, headers=encoded
        )
        assert answer.status_code == 415
    plain = {"content-encoding": "identity"}
    answer = await api.http.post(f"{PUMP}/normal", json={"vectors": [[1, 2, 3]]}, headers=plain)
    assert answer.status_code == 202


async def test_openapi_documents_every_route(api: Running) -> None:
    """Every operation has a summary and an example answer, and its problems are documented."""
    document = (await api.http.get("/openapi.json")).json()
    paths: dict[str, dict[str, Any]] = document["paths"]
    assert len(paths) == 47
    for path, operations in paths.items():
        for method, operation in operations.items():
            route = f"{method} {path}"
            assert operation["summary"], route
            assert any(status.startswith("2") for status in operation["responses"]), route
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    # The Open Inference Protocol has errors of its own.
                    kinds = {"application/problem+json"}
                    kinds |= {"application/json"} if path.startswith("/v2") else set()
                    assert kinds & response["content"].keys(), (route, status)
                elif "application/json" in response.get("content", {}):
                    assert "example" in response["content"]["application/json"], (route, status)
    score = paths["/v1/detectors/{name}/score"]["post"]
    assert set(score["requestBody"]["content"]) >= {
        "application/json", "application/octet-stream", "application/x-npy",
    }  # fmt: skip
    assert "application/octet-stream" in score["responses"]["200"]["content"]
    parameters = {parameter["name"] for parameter in score["parameters"]}
    assert parameters >= {"name", "version", "explain"}


async def test_a_scrape_has_rows_versions_and_store_counts(pump: Running) -> None:
    """A scrape has the scored rows, the loaded versions and the store's counts."""
    vectors = [[0, 0, 0], [60, 60, 60]]
    await pump.http.post(f"{PUMP}/score", json={"vectors": vectors})

    async def is_loaded() -> bool:
        """Return whether the swap is counted: it is a moment after the version serves."""
        page = (await pump.http.get("/metrics")).text
        return 'anamnesis_loaded_generation{detector="pump"}' in page

    await until(is_loaded)
    page = (await pump.http.get("/metrics")).text
    expected = {
        "vectors_scored_total": "2.0",
        "anomalies_total": "1.0",
        "score_duration_seconds_count": "1.0",
        "severity_count": "2.0",
        "loaded_generation": "1.0",
        "champion_version": "1.0",
        "champion_generation": "1.0",
        "swap_duration_seconds_count": "1.0",
    }
    for name, value in expected.items():
        assert f'anamnesis_{name}{{detector="pump"}} {value}' in page, name
    assert 'anamnesis_retrains_total{detector="pump",outcome="promoted"} 1.0' in page
    assert 'anamnesis_drift_state{detector="pump",state="none"} 1.0' in page
    assert "anamnesis_redis_up 1.0" in page
    for name in ("threshold", "champion_trained_timestamp_seconds", "buffer_vectors"):
        assert f'anamnesis_{name}{{detector="pump"}}' in page


async def test_without_the_store_scoring_goes_on_and_the_rest_is_503(
    own_store: Any, versions: Versions
) -> None:
    """Without its store a process still scores, and answers all else with 503 within 1 s."""
    async with running(own_store.url, store_seconds=DEADLINE, poll_seconds=0.2) as api:
        await api.make()
        await api.serve(versions[0])
        for break_it in (lambda: own_store.signal(signal.SIGSTOP), own_store.kill):
            break_it()
            calls = [
                ("GET", "/v1/detectors", None), ("GET", PUMP, None), ("PUT", PUMP, {}),
                ("DELETE", PUMP, None), ("POST", f"{PUMP}/normal", ZEROS),
                ("POST", f"{PUMP}/retrain", {}), ("GET", f"{PUMP}/versions", None),
                ("GET", f"{PUMP}/versions/1", None), ("PUT", f"{PUMP}/champion", {"version": 1}),
                ("GET", f"{PUMP}/versions/1/artifact", None), ("GET", f"{PUMP}/events", None),
                ("GET", f"{PUMP}/quarantine", None), ("GET", f"{PUMP}/drift", None),
                ("POST", f"{PUMP}/score?version=2", ZEROS),
                ("POST", "/v1/detectors/other/score", ZEROS),
            ]  # fmt: skip
            for method, path, body in calls:
                started = time.monotonic()
                answer = await api.http.request(method, path, json=body)
                took = time.monotonic() - started
                assert answer.status_code == 503, (method, path, answer.text)
                assert answer.headers["retry-after"], (method, path)
                assert took < 1.2, (method, path, took)  # 1 s, plus the delay of a busy machine
            scored = await api.http.post(f"{PUMP}/score", json=ZEROS)
            assert (scored.status_code, scored.json()["version"]) == (200, 1)
            assert (await api.http.post(f"{PUMP}/score?version=1", json=ZEROS)).status_code == 200
            assert (await api.http.get("/healthz")).status_code == 200

            async def degraded() -> bool:
                answer = await api.http.get("/readyz")
                return (answer.status_code, answer.json()["status"]) == (200, "degraded")

            await until(degraded)
            assert "anamnesis_redis_up 0.0" in (await api.http.get("/metrics")).text


async def test_a_process_starts_without_its_store_and_recovers(own_store: Any) -> None:
    """A process starts without its store, reports this, and recovers when the store comes."""
    own_store.kill()
    async with running(own_store.url, poll_seconds=0.2) as api:
        assert (await api.http.get("/healthz")).status_code == 200
        unready = await api.http.get("/readyz")
        assert (unready.status_code, unready.json()["status"]) == (503, 503)
        assert unready.headers["retry-after"]
        own_store.start()

        async def ready() -> bool:
            return (await api.http.get("/readyz")).status_code == 200

        await until(ready)
        assert (await api.http.put(PUMP, json={})).status_code == 201


async def test_an_emptied_store_is_reported_and_scoring_goes_on(
    own_store: Any, versions: Versions
) -> None:
    """If the store loses everything, the process continues to serve, and a metric reports it."""
    async with running(own_store.url, poll_seconds=0.2) as api:
        await api.make()
        await api.serve(versions[0])
        await api.parts.stores.redis.flushall()

        async def loss_is_reported() -> bool:
            page = (await api.http.get("/metrics")).text
            return 'anamnesis_store_regressions_total{detector="pump"} 1.0' in page

        await until(loss_is_reported)
        scored = await api.http.post(f"{PUMP}/score", json=ZEROS)
        assert (scored.status_code, scored.json()["version"]) == (200, 1)


async def test_a_weak_store_is_refused_unless_allowed(own_store: Any) -> None:
    """A store that can lose acknowledged writes is refused at start, unless a setting allows it."""
    own_store.kill()
    own_store.start("--appendfsync", "everysec")
    app = create_app(Settings(redis_url=own_store.url))
    with pytest.raises(WeakStore, match="appendfsync"):
        async with app.router.lifespan_context(app):
            pass
    async with running(own_store.url, allow_weak_store=True) as api:
        assert (await api.http.put(PUMP, json={})).status_code == 201


async def test_work_counts_retrainings_that_are_due(api: Running) -> None:
    """A retraining that is due, by batch or by hand, is counted until a worker takes it."""
    await api.make(retrain={"min_vectors": 64})
    assert (await api.http.get("/v1/work")).json() == {
        "due": 0, "running": 0, "oldest_seconds": 0.0
    }  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(70, 3)).tolist()
    await api.http.post("/v1/detectors/pump/normal", json={"vectors": rows})
    assert (await api.http.get("/v1/work")).json()["due"] == 1
    await api.parts.stores.due.begin("pump", 60.0)
    work = (await api.http.get("/v1/work")).json()
    assert (work["due"], work["running"]) == (0, 1)
    await api.parts.watcher.poll()
    assert "anamnesis_work_running 1.0" in (await api.http.get("/metrics")).text
