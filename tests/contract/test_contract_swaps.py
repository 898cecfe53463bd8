"""Swaps under load: no request fails, generations never go back, no answer mixes two versions."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.running import Running, running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"


async def test_no_request_fails_during_swaps(pump: Running, versions: Versions) -> None:
    """During 60 swaps every answer is 200, from one version, and never from an older one."""
    await pump.serve(versions[1])
    X = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    expected = {n: version.score(X).tolist() for n, version in enumerate(versions, 1)}
    done = asyncio.Event()
    seen: set[int] = set()

    async def score_until_done() -> int:
        last = answers = 0
        while not done.is_set():
            answer = await pump.http.post(f"{PUMP}/score", json={"vectors": X.tolist()})
            assert answer.status_code == 200
            body = answer.json()
            assert body["scores"] == pytest.approx(expected[body["version"]])
            assert body["generation"] >= last
            last = body["generation"]
            seen.add(last)
            answers += 1
        return answers

    clients = [asyncio.create_task(score_until_done()) for _ in range(4)]
    for move in range(60):
        answer = await pump.http.put(f"{PUMP}/champion", json={"version": 1 + move % 2})
        assert answer.json()["generation"] == 3 + move
    done.set()
    assert sum(await asyncio.gather(*clients)) > 60
    assert len(seen) > 20


async def test_champions_are_loaded_on_demand(
    own_store: Any, versions: Versions, tmp_path: Path
) -> None:
    """With a bound on memory the status says what is loaded; loading needs the store."""
    settings = {"loaded_bytes": 2**20, "cache_dir": tmp_path, "poll_seconds": 0.1}
    async with running(own_store.url, **settings) as api:
        for name in ("pump", "press"):
            await api.make(name)
            await api.learn(versions[0], name)
        await api.parts.watcher.poll()
        for name in ("pump", "press"):
            cold = (await api.http.get(f"/v1/detectors/{name}")).json()
            assert (cold["champion"], cold["generation"]) == (1, 1)
            assert (cold["loaded"], cold["threshold"]) == (False, None)
        answer = await api.http.post("/v1/detectors/pump/score", json={"vectors": [[0, 0, 0]]})
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        warm = (await api.http.get("/v1/detectors/pump")).json()
        assert (warm["loaded"], warm["champion"]) == (True, 1)
        own_store.kill()
        answer = await api.http.post("/v1/detectors/press/score", json={"vectors": [[0, 0, 0]]})
        assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True)
        answer = await api.http.post("/v1/detectors/pump/score", json={"vectors": [[0, 0, 0]]})
        assert answer.status_code == 200
