"""Swaps under load: nothing fails, nothing goes back, nothing is mixed."""

import asyncio

import numpy as np
import pytest

from models import Version
from tests.contract.running import Running

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"


async def test_swaps_under_load(pump: Running, versions: tuple[Version, Version]) -> None:
    """Every answer during 200 swaps is 200, of one version, and never older than one before."""
    await pump.learn(versions[1])
    await pump.serving(2)
    X = np.array([[0, 0, 0], [1, 2, 3]], np.float32)
    expected = {n: version.score(X).tolist() for n, version in enumerate(versions, 1)}
    done = asyncio.Event()
    seen: set[int] = set()

    async def client() -> int:
        last = answers = 0
        while not done.is_set():
            answer = await pump.http.post(f"{PUMP}/score", json={"vectors": X.tolist()})
            assert answer.status_code == 200
            found = answer.json()
            assert found["scores"] == pytest.approx(expected[found["version"]])
            assert found["generation"] >= last
            last = found["generation"]
            seen.add(last)
            answers += 1
        return answers

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for move in range(200):
        answer = await pump.http.put(f"{PUMP}/champion", json={"version": 1 + move % 2})
        assert answer.json()["generation"] == 3 + move
    done.set()
    assert sum(await asyncio.gather(*clients)) > 200
    assert len(seen) > 20
