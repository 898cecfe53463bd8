"""What the first release stored is read, shown unchanged, and used further."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from service.domain.audit_chain import broken
from service.store.redis_keys import Keys
from service.swap.artifacts import Artifacts
from service.swap.disk_cache import DiskCache
from tests.contract.running import Running, running
from tests.contract.test_contract_openapi import validator
from tests.released import files, released, restore
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

ANSWERS = released()["answers"]
PUMP = "/v1/detectors/pump"
TYPES = {
    "": "DetectorStatus", "/drift": "Drift", "/events": "Events", "/quarantine": "Quarantine",
    "/versions": "Versions",
}  # fmt: skip


@pytest.fixture
async def released_api(store_url: str, redis: Redis) -> AsyncIterator[Running]:
    """Serve the store of the first release, as its administrator."""
    await restore(redis)
    async with running(store_url, poll_seconds=0.2) as api:
        api.http.headers["authorization"] = f"Bearer {ANSWERS['admin_key']}"

        async def keys_are_read() -> bool:
            return (await api.http.get("/v1/detectors")).status_code == 200

        await until(keys_are_read)
        yield api


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Return where `now` differs from `was`; a later release may have more fields."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            difference
            for name, value in was.items()
            for difference in (
                differences(value, now[name], f"{path}.{name}") if name in now else [path + name]
            )
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [
            difference
            for i, (before, other) in enumerate(zip(was, now, strict=True))
            for difference in differences(before, other, f"{path}[{i}]")
        ]
    return [] if was == now else [f"{path}: {was} {now}"]


async def test_every_answer_of_the_first_release_is_the_same(released_api: Running) -> None:
    """Status, versions, events, quarantine, drift, audit trail and API keys answer as before.

    Each answer fits the type that OpenAPI names.
    """
    for name, answers in ANSWERS["detectors"].items():
        for path, was in answers.items():
            answer = await released_api.http.get(f"/v1/detectors/{name}{path}")
            assert answer.status_code == 200, (name, path, answer.text)
            assert differences(was, answer.json()) == [], (name, path)
            errors = validator(TYPES[path]).iter_errors(answer.json())
            assert not [error.message for error in errors], (name, path)
    for name, was in ANSWERS["audit"].items():
        assert (
            differences(was, (await released_api.http.get(f"/v1/detectors/{name}/audit")).json())
            == []
        )
    assert differences(ANSWERS["keys"], (await released_api.http.get("/v1/keys")).json()) == []
    labels = await released_api.parts.stores.labels.all("pump")
    assert sorted(label.label for label in labels) == ["anomaly", "anomaly", "normal"]


async def test_stored_keys_keep_their_scopes(released_api: Running) -> None:
    """A stored key keeps its scopes; its secret was never in the store."""
    sender = {"authorization": f"Bearer {ANSWERS['line_key']}"}
    scored = await released_api.http.post(
        f"{PUMP}/score", json={"vectors": [[0, 0, 0]]}, headers=sender
    )
    assert (scored.status_code, scored.json()["version"]) == (200, 2)
    assert (await released_api.http.get(PUMP, headers=sender)).status_code == 403
    for version in (1, 2):
        pinned = await released_api.http.post(
            f"{PUMP}/score?version={version}", json={"vectors": [[0, 0, 0]]}
        )
        assert (pinned.status_code, pinned.json()["version"]) == (200, version)


async def test_an_idempotency_key_of_the_first_release_counts(released_api: Running) -> None:
    """An Idempotency-Key of the first release still gives its first answer."""
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype("<f4")
    headers = {
        "authorization": f"Bearer {ANSWERS['line_key']}",
        "content-type": "application/octet-stream",
        "idempotency-key": ANSWERS["idempotency_key"],
    }
    again = await released_api.http.post(f"{PUMP}/normal", content=rows.tobytes(), headers=headers)
    first = ANSWERS["first"]
    assert again.status_code == 202, again.text
    assert again.json()["batch_id"] == first["batch_id"]
    assert again.json()["duplicate"] == 300
    other = await released_api.http.post(
        f"{PUMP}/normal", content=(rows + 1).tobytes(), headers=headers
    )
    assert other.status_code == 422


async def test_held_rows_and_buffer_of_the_first_release_are_learned(
    released_api: Running, versions: Versions
) -> None:
    """Held rows can be decided, the buffer is learned, and the next version has the next number."""
    before = ANSWERS["detectors"]["pump"][""]
    (entry,) = ANSWERS["detectors"]["pump"]["/quarantine"]["quarantine"]
    path = f"{PUMP}/quarantine/{entry['id']}"
    rows = (await released_api.http.get(path)).json()["vectors"]
    assert len(rows) == entry["vectors"]
    done = await released_api.http.post(path, json={"decision": "release"})
    assert (done.status_code, done.json()["vectors"]) == (200, entry["vectors"])
    await released_api.learn(versions[1])
    await released_api.serving(before["last_version"] + 1)
    status = (await released_api.http.get(PUMP)).json()
    assert status["generation"] == before["generation"] + 1
    assert status["learned"] == before["learned"] + before["buffered"] + entry["vectors"] + 40
    back = await released_api.http.put(f"{PUMP}/champion", json={"version": 2})
    assert (back.status_code, back.json()["generation"]) == (200, before["generation"] + 2)
    trail = await released_api.parts.stores.audit.entries("pump")
    assert [entry.action for entry in trail[-3:]] == ["release", "promoted", "champion"]
    assert broken(trail) is None


async def test_parked_and_revoked_versions_stay_parked_and_revoked(released_api: Running) -> None:
    """A rejected version may be promoted, a revoked one may not; parked data can be released."""
    (entry,) = ANSWERS["detectors"]["parked"]["/quarantine"]["quarantine"]
    refused = await released_api.http.put("/v1/detectors/fan/champion", json={"version": 2})
    assert refused.status_code in {409, 410}, refused.text
    promoted = await released_api.http.put("/v1/detectors/parked/champion", json={"version": 2})
    assert promoted.status_code == 200, promoted.text
    status = (await released_api.http.get("/v1/detectors/parked")).json()
    assert (status["parked"], status["learned"]) == (0, 600)
    assert entry["vectors"] == 300
    sender = {"batch": ANSWERS["first"]["batch_id"], "dry_run": True}
    plan = await released_api.http.post(f"{PUMP}/revoke", json=sender)
    assert plan.status_code == 200, plan.text
    assert plan.json()["versions"] == [1, 2]


async def test_a_deletion_leaves_only_audit_trail_and_tombstone(released_api: Running) -> None:
    """A deletion removes everything of a detector except its audit trail and the tombstone."""
    redis = released_api.parts.stores.redis
    assert (await released_api.http.delete(PUMP)).status_code == 204
    keys = Keys("pump")
    left = {key.decode() for key in await redis.keys("*{pump}*")}
    # The first release kept no list of these keys, so a deletion leaves them until they expire.
    unlisted = {key for key in left if ":idempotency:" in key}
    assert left - unlisted == {keys.audit, keys.tombstone}


def test_the_disk_cache_of_the_first_release_is_served(tmp_path: Path) -> None:
    """Champions in the first release's disk cache are restored unchanged."""
    files(tmp_path)
    champions = {
        champion.name: champion for champion in DiskCache(tmp_path, Artifacts(2**24)).restore()
    }
    assert {
        name: (champion.number, champion.generation) for name, champion in champions.items()
    } == {
        name: (answers[""]["champion"], answers[""]["generation"])
        for name, answers in ANSWERS["detectors"].items()
    }
    judged = champions["pump"].version.judge(
        np.zeros((1, 3), np.float32), champions["pump"].threshold
    )
    assert np.isfinite(judged.scores).all()
