"""A store restored from an older copy gives numbers a second time; both uses are distinguished."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import Version
from service.domain.api_key import Scope, digest, identity
from service.store.api_keys import ApiKeys
from service.store.lua import Fenced
from service.store.retrainings import Retrainings
from tests.contract.running import GOOD, Running, running
from tests.contract.test_contract_keys import bearer, key
from tests.restored import copied, put_back
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
ROWS = {"vectors": [[0.5, -1.0, 2.0]]}
OCTETS = {"content-type": "application/octet-stream"}


async def scores(api: Running, query: str = "") -> list[float]:
    """Return the scores of ROWS, by the champion or by the version that `query` pins."""
    answer = await api.http.post(f"{PUMP}/score{query}", json=ROWS)
    assert answer.status_code == 200, answer.text
    scores: list[float] = answer.json()["scores"]
    return scores


async def ahead_of_store(api: Running) -> None:
    """Wait until the status of `pump` says that the process is ahead of its store."""

    async def is_ahead() -> bool:
        return bool((await api.http.get(PUMP)).json()["ahead_of_store"])

    await until(is_ahead)


def expected(version: Version) -> list[float]:
    """Return the scores that `version` gives ROWS."""
    return version.score(np.float32(ROWS["vectors"])).tolist()


async def test_a_second_champion_of_the_same_number_is_served(
    pump: Running, versions: Versions
) -> None:
    """Version 2 of generation 2 is made twice, and the second one serves."""
    redis = pump.parts.stores.redis
    copy = await copied(redis)
    await pump.serve(versions[1])
    assert await scores(pump) == expected(versions[1])
    await put_back(redis, copy)
    await pump.learn(versions[0])

    async def second_champion_serves() -> bool:
        return await scores(pump) == expected(versions[0])

    await until(second_champion_serves)
    status = (await pump.http.get(PUMP)).json()
    assert (status["champion"], status["generation"]) == (2, 2)
    assert not status["ahead_of_store"]


async def test_after_a_restore_the_newer_champion_serves_on(
    pump: Running, versions: Versions
) -> None:
    """The newer champion stays in service, and status says so, until somebody moves it."""
    redis = pump.parts.stores.redis
    await pump.serve(versions[1])
    copy = await copied(redis)
    for version in (1, 2):
        moved = await pump.http.put(f"{PUMP}/champion", json={"version": version})
        assert moved.status_code == 200
    await put_back(redis, copy)
    await ahead_of_store(pump)
    assert (await pump.http.get(PUMP)).json()["generation"] == 4
    moved = await pump.http.put(f"{PUMP}/champion", json={"version": 1})
    assert (moved.status_code, moved.json()["generation"]) == (200, 3)
    status = (await pump.http.get(PUMP)).json()
    assert (status["champion"], status["generation"]) == (1, 3)
    assert not status["ahead_of_store"]
    assert await scores(pump) == expected(versions[0])


@pytest.mark.parametrize("repeated", ["champion", "config"])
async def test_a_repeated_decision_after_a_restore_counts(
    pump: Running, versions: Versions, repeated: str
) -> None:
    """A process that serves a lost state follows the store when the store's state is repeated."""
    redis = pump.parts.stores.redis
    copy, config = await copied(redis), (await pump.http.get(PUMP)).json()["config"]
    await pump.serve(versions[1])
    await put_back(redis, copy)
    await ahead_of_store(pump)
    if repeated == "champion":
        answer = await pump.http.put(f"{PUMP}/champion", json={"version": 1})
    else:
        answer = await pump.http.put(PUMP, json=config)
    assert answer.status_code == 200, answer.text
    await pump.serving(1)
    status = (await pump.http.get(PUMP)).json()
    assert (status["generation"], status["config_revision"]) == (1, 1)
    assert not status["ahead_of_store"]
    assert await scores(pump) == expected(versions[0])


async def test_a_lost_detector_can_be_deleted(api: Running, versions: Versions) -> None:
    """A detector that a restored store lacks is served until it is deleted, which is 204 once."""
    copy = await copied(api.parts.stores.redis)
    await api.make()
    await api.serve(versions[0])
    await put_back(api.parts.stores.redis, copy)
    await api.parts.watcher.follow("pump")
    assert await scores(api) == expected(versions[0])
    assert [(await api.http.delete(PUMP)).status_code for _ in range(2)] == [204, 404]
    assert (await api.http.post(f"{PUMP}/score", json=ROWS)).status_code == 404


async def test_a_lost_detector_can_be_deleted_through_another_process(
    api: Running, store_url: str, versions: Versions
) -> None:
    """A process that never knew the lost detector answers 404, and no process serves it again."""
    redis = api.parts.stores.redis
    copy = await copied(redis)
    await api.make()
    await api.serve(versions[0])
    await put_back(redis, copy)
    await api.parts.watcher.follow("pump")
    assert await scores(api) == expected(versions[0])
    async with running(store_url) as other:
        assert (await other.http.delete(PUMP)).status_code == 404
    await api.parts.watcher.follow("pump")
    assert (await api.http.post(f"{PUMP}/score", json=ROWS)).status_code == 404


async def test_a_lost_key_can_be_revoked(api: Running) -> None:
    """Revoking a key that a restored store lacks is 404, and no process accepts the key again."""
    admin = await key(api, set(Scope), None)
    copy = await copied(api.parts.stores.redis)
    late = await key(api, {"read"}, None)
    await put_back(api.parts.stores.redis, copy)
    await api.parts.access.refresh(api.parts.stores.api_keys)
    listed = "/v1/detectors"
    assert (await api.http.get(listed, headers=bearer(late))).status_code == 200
    path = f"/v1/keys/{identity(digest(late.encode()))}"
    assert (await api.http.delete(path, headers=bearer(admin))).status_code == 404
    await api.parts.access.refresh(api.parts.stores.api_keys)
    answers = [await api.http.get(listed, headers=bearer(key)) for key in (late, admin)]
    assert [answer.status_code for answer in answers] == [401, 200]


async def test_a_second_config_of_the_same_revision_counts(
    pump: Running, versions: Versions
) -> None:
    """Revision 2 is made twice, and the second config counts."""
    redis = pump.parts.stores.redis
    copy = await copied(redis)
    await pump.make(threshold={"fpr": 0.02})
    await put_back(redis, copy)
    await pump.make(threshold={"fpr": 0.3})

    async def second_config_decides() -> bool:
        status: dict[str, Any] = (await pump.http.get(PUMP)).json()
        return bool(status["threshold"] == versions[0].threshold_for({"fpr": 0.3}).value)

    await until(second_config_decides)
    assert (await pump.http.get(PUMP)).json()["config_revision"] == 2


async def test_a_second_pinned_version_of_the_same_number_is_scored(
    pump: Running, versions: Versions
) -> None:
    """Version 2 is imported twice, and a pinned request gets the second one."""
    redis = pump.parts.stores.redis
    copy = await copied(redis)
    for version in (versions[1], versions[0]):
        await put_back(redis, copy)
        answer = await pump.http.post(
            f"{PUMP}/versions", content=version.to_bytes(), headers=OCTETS
        )
        assert (answer.status_code, answer.json()["version"]) == (201, 2)

        async def this_version_scores(version: Version = version) -> bool:
            return await scores(pump, "?version=2") == expected(version)

        await until(this_version_scores)


@pytest.mark.parametrize("noticed", [False, True])
async def test_other_keys_of_the_same_revision_are_followed(api: Running, noticed: bool) -> None:
    """A key deleted after the restore is refused, and so is a key that the copy does not have."""
    await api.make()
    admin = await key(api, set(Scope), None)
    other = await key(api, {"read"}, None)
    redis = api.parts.stores.redis
    copy = await copied(redis)
    late = await key(api, {"read"}, None)
    for secret in (other, late):
        assert (await api.http.get(PUMP, headers=bearer(secret))).status_code == 200
    keys = ApiKeys(redis)
    (identity,) = [grant.id for grant in (await keys.read())[1] if grant.scopes == {"read"}][:1]
    await put_back(redis, copy)
    if noticed:

        async def restore_is_noticed() -> bool:
            return api.parts.access._older_state is not None

        await until(restore_is_noticed)
    await keys.revoke(identity)

    async def both_keys_are_refused() -> bool:
        answers = [await api.http.get(PUMP, headers=bearer(key)) for key in (other, late)]
        return [answer.status_code for answer in answers] == [401, 401]

    await until(both_keys_are_refused)
    assert (await api.http.get(PUMP, headers=bearer(admin))).status_code == 200


async def test_a_training_on_a_lost_champion_is_fenced(pump: Running, versions: Versions) -> None:
    """If the champion is another one in the same generation, nothing is promoted."""
    stores = pump.parts.stores
    copy = await copied(stores.redis)
    await pump.learn(versions[1])
    await stores.buffer.ingest("pump", np.zeros((40, 3), np.float32))
    experience = await stores.buffer.take("pump")
    assert experience is not None
    await put_back(stores.redis, copy)
    await pump.learn(versions[0])
    await stores.buffer.ingest("pump", np.zeros((40, 3), np.float32))
    again = await stores.buffer.take("pump")
    assert again is not None
    assert again.generation == experience.generation
    lease = await stores.leases.acquire("pump", 30.0)
    assert lease is not None
    await Retrainings(stores.redis).start(lease)
    artifact = versions[1].to_bytes()
    stale = replace(again, champion_nonce=experience.champion_nonce)
    with pytest.raises(Fenced):
        await stores.registry.settle(lease, stale, artifact, GOOD, seconds=1)
    assert await stores.registry.settle(lease, again, artifact, GOOD, seconds=1) == 3
    detector = await stores.detectors.get("pump")
    assert detector is not None
    assert detector.champion_sha256 == hashlib.sha256(artifact).hexdigest()
