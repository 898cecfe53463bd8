"""Revocation over HTTP: the answers of the contract."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from models import Version
from service.domain.event import Label
from service.domain.incident import DismissedPattern
from service.store.retrainings import Retrainings
from tests.contract.running import GOOD, Running, running
from tests.contract.test_contract_keys import bearer, key
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
ZEROS = {"vectors": [[0, 0, 0]]}


async def settle(api: Running, version: Version) -> None:
    """Do a worker's steps: promote `version` for the buffered vectors."""
    stores = api.parts.stores
    lease = await stores.leases.acquire("pump", 30.0)
    assert lease is not None
    await Retrainings(stores.redis).start(lease)
    experience = await stores.buffer.take("pump")
    assert experience is not None
    data = version.to_bytes()
    number = await stores.registry.settle(lease, experience, data, GOOD, seconds=0.5)
    await stores.leases.release(lease)
    await api.serving(number)


async def send(api: Running, seed: int, n: int = 40, **headers: str) -> str:
    """Send a batch of normals; return its id."""
    X = np.random.default_rng(seed).normal(size=(n, 3))
    answer = await api.http.post(f"{PUMP}/normal", json={"vectors": X.tolist()}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["batch_id"]


@asynccontextmanager
async def serving_with_keys(store_url: str, versions: Versions) -> AsyncIterator[Running]:
    """Run a service whose client has a key of every scope; its detector serves a version."""
    async with running(store_url, poll_seconds=0.1) as api:
        admin = bearer(await key(api, {"admin", "ingest", "read", "score", "label"}, None))
        api.http.headers.update(admin)
        await api.make()
        await api.serve(versions[0])
        yield api


async def revoke(api: Running, **target: object) -> dict:
    """Return the answer to a completed revocation."""
    answer = await api.http.post(f"{PUMP}/revoke", json=target)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_revoking_a_key_does_what_the_dry_run_predicts(
    store_url: str, versions: Versions
) -> None:
    """The data of a key is revoked over a real socket, and the dry run predicts the result."""
    async with running(store_url, poll_seconds=0.1) as api:
        api.http.headers.update(bearer(await key(api, {"admin", "ingest", "read", "score"}, None)))
        bad = bearer(await key(api, {"ingest"}, {"pump"}))
        await api.make(admission="accept", keep_learned_seconds=3600)
        await send(api, 1)
        await settle(api, versions[0])
        await send(api, 2, 60)
        await send(api, 3, 50, **bad)
        await settle(api, versions[1])
        await send(api, 4, 5, **bad)
        keys = (await api.http.get("/v1/keys")).json()["keys"]
        culprit = next(key["id"] for key in keys if key["scopes"] == ["ingest"])
        planned = await revoke(api, key=culprit, dry_run=True)
        assert (await api.http.get(PUMP)).json()["champion"] == 2
        done = await revoke(api, key=culprit, why="press 7 was broken")
        assert planned == done | {"dry_run": True}
        assert (done["champion"], done["generation"], done["versions"]) == (1, 3, [2])
        assert done["discarded"] == {"buffered": 5, "quarantined": 0, "parked": 0, "kept": 50}
        assert (done["relearned"]["vectors"], done["lost"]["vectors"]) == (60, 0)
        scored = (await api.http.post(f"{PUMP}/score", json=ZEROS)).json()
        assert (scored["version"], scored["generation"]) == (1, 3)
        status = (await api.http.get(PUMP)).json()
        assert (status["buffered"], status["learned"]) == (60, 40)
        record = (await api.http.get(f"{PUMP}/versions/2")).json()
        assert (record["state"], record["revoked"]["key"]) == ("revoked", culprit)
        again = await api.http.put(f"{PUMP}/champion", json={"version": 2})
        assert again.status_code == 409
        entry = (await api.http.get(f"{PUMP}/audit")).json()["audit"][-1]
        assert (entry["action"], entry["why"]) == ("revoked", "press 7 was broken")
        assert entry["who"].startswith("key:")


async def test_without_a_clean_version_the_answer_is_409(pump: Running, versions: Versions) -> None:
    """Without a clean version the answer is 409; on request the champion is removed."""
    record = (await pump.http.get(f"{PUMP}/versions/1")).json()
    batch = record["experience"]["batches"][0]
    answer = await pump.http.post(f"{PUMP}/revoke", json={"batch": batch})
    assert answer.status_code == 409
    assert "without_champion" in answer.json()["detail"]
    assert (await pump.http.post(f"{PUMP}/score", json=ZEROS)).status_code == 200
    assert (await revoke(pump, batch=batch, dry_run=True))["champion"] is None
    assert (await revoke(pump, batch=batch, without_champion=True))["champion"] is None
    (status,) = (await pump.http.get("/v1/detectors?recent=true")).json()["detectors"]
    assert status["recent"]["champion_since"] is None
    assert (await pump.http.post(f"{PUMP}/score", json=ZEROS)).status_code == 409
    status = await pump.http.get(PUMP)
    assert (status.json()["champion"], status.json()["learned"]) == (None, 0)
    assert (await pump.http.get("/metrics")).status_code == 200
    await send(pump, 7)
    await settle(pump, versions[1])
    scored = (await pump.http.post(f"{PUMP}/score", json=ZEROS)).json()
    assert (scored["version"], scored["generation"]) == (2, 3)


async def test_every_process_unloads_a_revoked_version(
    store_url: str, versions: Versions, tmp_path
) -> None:
    """Every process unloads a revoked version, from its disk cache too."""
    async with running(store_url, poll_seconds=0.2) as api:
        await api.make()
        await api.learn(versions[0])
        async with running(store_url, poll_seconds=0.2, cache_dir=tmp_path) as other:
            await other.serving(1)
            assert list(tmp_path.iterdir())
            batch = (await api.http.get(f"{PUMP}/versions/1")).json()["experience"]["batches"][0]
            await revoke(api, batch=batch, without_champion=True)
            await other.parts.watcher.refresh("pump")
            assert (await other.http.post(f"{PUMP}/score", json=ZEROS)).status_code == 409
            assert not list(tmp_path.iterdir())


async def test_ambiguous_and_unknown_targets_are_refused(pump: Running) -> None:
    """A request for both batch and key or for neither, and one for an unknown one, is refused."""
    path = f"{PUMP}/revoke"
    for body in (
        {},
        {"batch": "a", "key": "b"},
        {"batch": ""},
        {"batch": 1},
        {"batch": "a", "x": 1},
    ):
        assert (await pump.http.post(path, json=body)).status_code == 422, body
    for body in ({"batch": "a"}, {"key": "a"}, {"key": "ü\x00" * 50, "dry_run": True}):
        answer = await pump.http.post(path, json=body)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found"), body
    answer = await pump.http.post("/v1/detectors/no/revoke", json={"batch": "a"})
    assert answer.status_code == 404


async def test_revoking_a_key_that_only_labelled_ends_its_dismissals(
    store_url: str, versions: Versions
) -> None:
    """A key without any stored row can be revoked: its labels and its dismissals go."""
    async with serving_with_keys(store_url, versions) as api:
        labeller = bearer(await key(api, {"label"}, {"pump"}))
        keys = (await api.http.get("/v1/keys")).json()["keys"]
        culprit = next(key["id"] for key in keys if key["scopes"] == ["label"])
        label = {"labels": [{"label": "anomaly", "vector": [9.0, 9.0, 9.0]}]}
        sent = await api.http.post(f"{PUMP}/feedback", json=label, headers=labeller)
        assert sent.status_code == 200
        incidents = api.parts.stores.incidents
        own = DismissedPattern("e1-0", {"x0": (1.0, 2.0)}, sender=culprit)
        other = DismissedPattern("e2-0", {"x0": (1.0, 2.0)}, sender="other")
        await incidents.add_dismissed_patterns("pump", [own, other])
        done = await revoke(api, key=culprit)
        assert (done["labels"], done["versions"], done["champion"]) == (1, [], 1)
        assert await incidents.dismissed_patterns("pump") == [other]
        assert (await api.http.get(f"{PUMP}/labels")).json()["labels"] == []
        again = await api.http.post(f"{PUMP}/revoke", json={"key": culprit})
        assert again.status_code == 404


async def test_revoking_a_key_leaves_what_others_dismissed(
    store_url: str, versions: Versions
) -> None:
    """An event that two keys labelled normal pages nobody until the labels of both are gone."""
    async with serving_with_keys(store_url, versions) as api:
        stores = api.parts.stores
        detector = await stores.detectors.get("pump")
        assert detector is not None
        pattern = DismissedPattern("e1-0", {"x0": (1.0, 2.0)}, sender="second")
        await stores.incidents.add_dismissed_patterns("pump", [pattern])
        x = np.ones(3, np.float32)
        for sender in ("first", "second"):
            label = Label("normal", x, "1-0", 1.0, sender=sender)
            await stores.labels.add("pump", detector.uid, [label], who="a test")
        await revoke(api, key="second")
        assert await stores.incidents.dismissed_patterns("pump") == [pattern]
        await revoke(api, key="first")
        assert await stores.incidents.dismissed_patterns("pump") == []
