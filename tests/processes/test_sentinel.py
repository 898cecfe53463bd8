"""A store that Sentinel watches: its master dies during scoring, ingestion and training."""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis as BlockingRedis

from service.problems import StoreUnavailable
from service.settings import Settings
from service.store.connection import ask, connect
from tests.contract.running import Running, running
from tests.deploy.running import running as process
from tests.sentinels import Sentinels, sentinels
from tests.waiting import until

pytestmark = pytest.mark.anyio

CONFIG = {
    "model": {"epochs": 20, "hidden": [16], "latent": 2},
    "retrain": {"min_vectors": None, "max_age_seconds": None},
}
DRAWN = np.random.default_rng(0)


@asynccontextmanager
async def service(store: Sentinels, folder: Path) -> AsyncIterator[Running]:
    """Run an API process and a worker that acknowledge only what one replica has, too."""
    settings = {"ANAMNESIS_REDIS_URL": store.url}
    with process((sys.executable, "-m", "service.worker"), folder / "worker.log", settings):
        async with running(store.url, poll_seconds=0.2, wait_replicas=1) as api:
            yield api


async def repeated_until_answered(
    api: Running, method: str, path: str, **sent: Any
) -> httpx.Response:
    """Repeat a request until the store is there again."""
    async with asyncio.timeout(60):
        while True:
            answer = await api.http.request(method, f"/v1/detectors/pump{path}", **sent)
            if answer.status_code != 503:
                assert answer.is_success, answer.text
                return answer
            await asyncio.sleep(0.1)  # shorter than Retry-After asks


async def test_a_rotated_password_of_the_sentinels_is_used(tmp_path: Path):
    """The next connection to a sentinel reads the new password; no restart is needed."""
    file = tmp_path / "address"
    with sentinels(tmp_path) as store:
        ports = [int(port) for port in re.findall(r":(\d+)", store.url)]

        def require(password: str, before: str | None = None) -> None:
            for port in ports:
                with BlockingRedis(port=port, password=before) as sentinel:
                    rule = ("on", "resetpass", f">{password}", "~*", "&*", "+@all")
                    sentinel.execute_command("ACL", "SETUSER", "default", *rule)
                    sentinel.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        require("one")
        file.write_text(f"{store.url}?sentinel_password=one")
        redis = await connect(Settings(redis_url_file=file).store_url() or "")
        assert await ask(redis, redis.ping())
        require("two", before="one")
        with BlockingRedis(port=store.ports[0]) as master:
            master.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(StoreUnavailable):
            await ask(redis, redis.ping())
        file.write_text(f"{store.url}?sentinel_password=two")

        async def answers() -> bool:
            with contextlib.suppress(StoreUnavailable):  # a busy machine answers late
                return bool(await ask(redis, redis.ping()))
            return False

        await until(answers)
        await redis.aclose()


@pytest.mark.thorough
async def test_a_failover_loses_nothing_that_was_acknowledged(tmp_path: Path):
    """Scoring continues, and the new master learns every acknowledged vector once."""
    with sentinels(tmp_path) as store:
        async with service(store, tmp_path) as api:
            await repeated_until_answered(api, "PUT", "", json=CONFIG)
            first = DRAWN.normal(size=(200, 3)).tolist()
            await repeated_until_answered(api, "POST", "/normal", json={"vectors": first})
            await repeated_until_answered(api, "POST", "/retrain", json={"wait": 60}, timeout=90)
            await api.serving(1)
            scored: list[int] = []
            done = asyncio.Event()

            async def score() -> None:
                while not done.is_set():
                    rows = {"vectors": first[:2]}
                    answer = await api.http.post("/v1/detectors/pump/score", json=rows)
                    scored.append(answer.status_code)
                    await asyncio.sleep(0.02)

            scoring = asyncio.create_task(score())
            for batch in range(20):
                if batch == 8:  # a training is under way when the master dies
                    await repeated_until_answered(api, "POST", "/retrain")
                    store.master.kill()
                    store.master.wait()
                if batch == 10:
                    await until(lambda: promoted(store))
                    store.restart()
                rows = DRAWN.normal(size=(20, 3)).tolist()
                key = {"idempotency-key": f"batch-{batch}"}
                if batch in {8, 9}:
                    # Nothing is acknowledged before the replica is back.
                    sent = asyncio.create_task(
                        repeated_until_answered(
                            api, "POST", "/normal", json={"vectors": rows}, headers=key
                        )
                    )
                    continue
                await repeated_until_answered(
                    api, "POST", "/normal", json={"vectors": rows}, headers=key
                )
            await sent

            async def learned() -> bool:
                answer = await api.http.get("/v1/detectors/pump")
                status = answer.json() if answer.is_success else {}
                if status.get("buffered", 0) >= 32 and status["retraining"]["state"] == "idle":
                    await api.http.post("/v1/detectors/pump/retrain")
                return status.get("learned", 0) == 600

            await until(learned)
            done.set()
            await scoring
            assert set(scored) == {200}
            assert len(scored) > 50
            status = (await repeated_until_answered(api, "GET", "")).json()
            assert status["champion"] >= 2


async def promoted(store: Sentinels) -> bool:
    """Return whether the replica is the master now."""
    return await asyncio.to_thread(store.role, store.ports[1]) == "master"
