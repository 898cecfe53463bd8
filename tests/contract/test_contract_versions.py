"""Versions and the champion: the answers of the contract."""

import functools
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from models.version import artifact
from service.store.redis_keys import Keys
from tests.contract.running import Running, running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

OCTETS = {"content-type": "application/octet-stream"}
PUMP = "/v1/detectors/pump"
ZEROS = {"vectors": [[0, 0, 0]]}


async def test_versions_are_listed_and_shown_with_their_states(
    pump: Running, versions: Versions
) -> None:
    """Versions are listed with their states, and shown one by one."""
    await pump.learn(versions[1], good=False)
    records = (await pump.http.get(f"{PUMP}/versions")).json()["versions"]
    assert [(record["version"], record["state"]) for record in records] == [
        (1, "champion"),
        (2, "rejected"),
    ]
    shown = await pump.http.get(f"{PUMP}/versions/2")
    assert shown.json() == records[1]
    assert shown.json()["gate"]["reasons"] == ["worse on old normals"]
    for number in ("3", "0", "-1", "x", "99999999999999999999", "%00"):
        assert (await pump.http.get(f"{PUMP}/versions/{number}")).status_code == 404
    for path in ("versions", "versions/1", "versions/1/artifact"):
        assert (await pump.http.get(f"/v1/detectors/nobody/{path}")).status_code == 404


async def test_a_rollback_is_in_effect_at_its_answer(pump: Running, versions: Versions) -> None:
    """A rollback is in effect at its answer, adds a generation, and names what it forgets."""
    await pump.serve(versions[1])
    answer = await pump.http.put(f"{PUMP}/champion", json={"version": 1})
    assert answer.status_code == 200
    assert answer.json() == {
        "champion": 1,
        "generation": 3,
        "forgets": {"vectors": 40, "versions": [2]},
        "labels": {"normal": 0, "anomaly": 0, "unlearned": 0, "spared": 0},
        "effect": "Version 1 serves. It does not know what was learned since: 40 vectors.",
    }
    assert answer.headers["etag"] == '"3"'
    scored = (await pump.http.post(f"{PUMP}/score", json=ZEROS)).json()
    assert (scored["version"], scored["generation"]) == (1, 3)
    status = await pump.http.get(PUMP)
    assert status.headers["etag"] == '"3"'


async def test_a_stale_if_match_is_412(pump: Running, versions: Versions) -> None:
    """`If-Match` with a generation other than the present one is 412."""
    await pump.learn(versions[1])
    path, body = f"{PUMP}/champion", {"version": 1}
    for tag in ('"1"', "x", 'W/"1"', '"99999999999999"', ""):
        answer = await pump.http.put(path, json=body, headers={"if-match": tag})
        assert answer.status_code == 412, tag
    answer = await pump.http.put(path, json=body, headers={"if-match": '"2"'})
    assert (answer.status_code, answer.json()["generation"]) == (200, 3)
    answer = await pump.http.put(path, json={"version": 2}, headers={"if-match": "*"})
    assert (answer.status_code, answer.json()["generation"]) == (200, 4)
    # The ETag as a compressing proxy returns it to the client.
    answer = await pump.http.put(path, json=body, headers={"if-match": 'W/"4"'})
    assert (answer.status_code, answer.json()["generation"]) == (200, 5)
    answer = await pump.http.put(path, json={"version": 2}, headers={"if-match": '"5-gzip"'})
    assert (answer.status_code, answer.json()["generation"]) == (200, 6)


async def test_invalid_promotions_are_refused(pump: Running, versions: Versions) -> None:
    """An unknown version is 404, a pruned one 410, a body that names none 422."""
    path = f"{PUMP}/champion"
    assert (await pump.http.put(path, json={"version": 9})).status_code == 404
    refused = await pump.http.put("/v1/detectors/no/champion", json={"version": 1})
    assert refused.status_code == 404
    for body in ({}, {"version": "1"}, {"version": 0}, {"version": True}, {"version": 1, "x": 1}):
        assert (await pump.http.put(path, json=body)).status_code == 422, body
    await pump.learn(versions[1], good=False)
    await pump.parts.stores.redis.hdel(Keys("pump").artifacts, "2")
    assert (await pump.http.put(path, json={"version": 2})).status_code == 410
    assert (await pump.http.get(f"{PUMP}/versions/2/artifact")).status_code == 410


async def test_an_exported_version_serves_after_its_import(
    pump: Running, versions: Versions
) -> None:
    """An artifact is downloaded, imported elsewhere, and serves there once it is promoted."""
    got = await pump.http.get(f"{PUMP}/versions/1/artifact")
    for tags, status in (
        (got.headers["etag"], 304), (f'"0", W/{got.headers["etag"]}', 304), ("*", 304),
        (f'{got.headers["etag"][:-1]}-gzip"', 304), ('"0"', 200),
    ):  # fmt: skip
        known = {"if-none-match": tags}
        again = await pump.http.get(f"{PUMP}/versions/1/artifact", headers=known)
        assert (again.status_code, again.headers["etag"]) == (status, got.headers["etag"]), tags
        assert again.content == (b"" if status == 304 else got.content)
    assert got.content == versions[0].to_bytes()
    assert got.headers["etag"] == f'"{hashlib.sha256(got.content).hexdigest()}"'
    await pump.make("twin")
    path = "/v1/detectors/twin/versions"
    put = await pump.http.post(path, content=got.content, headers=OCTETS)
    assert put.status_code == 201
    assert put.json()["outcome"] == "imported"
    assert put.headers["location"] == f"{path}/1"
    assert (await pump.http.post("/v1/detectors/twin/score", json=ZEROS)).status_code == 409
    moved = await pump.http.put("/v1/detectors/twin/champion", json={"version": 1})
    assert moved.status_code == 200, moved.text
    scored = (await pump.http.post("/v1/detectors/twin/score", json=ZEROS)).json()
    theirs = (await pump.http.post(f"{PUMP}/score", json=ZEROS)).json()
    assert scored["scores"] == theirs["scores"]


async def test_rows_are_drawn_reproducibly_from_a_generator(
    pump: Running, versions: Versions
) -> None:
    """Rows are drawn from a version's generator: the same seed gives the same rows."""
    path = f"{PUMP}/versions/1/sample"
    drawn = (await pump.http.get(path, params={"n": 40, "seed": 3})).json()
    assert drawn["vectors"] == versions[0].with_faithful_draws().sample(40, 3).tolist()
    assert (drawn["version"], drawn["features"], drawn["seed"]) == (1, ["0", "1", "2"], 3)
    assert drawn["typical"] == [
        {"regime": regime.number, "vector": regime.typical.tolist()}
        for regime in versions[0].regimes
    ]
    assert drawn["typical"]
    assert len((await pump.http.get(path)).json()["vectors"]) == 25
    for query in ({"n": 0}, {"n": 1001}, {"n": "x"}, {"seed": -1}, {"seed": 2**31}):
        assert (await pump.http.get(path, params=query)).status_code == 422, query
    assert (await pump.http.get(f"{PUMP}/versions/9/sample")).status_code == 404


async def test_damaged_and_foreign_imports_are_refused(pump: Running, versions: Versions) -> None:
    """A body other than an intact version of the detector's dimension is 422, another type 415."""
    path, data = f"{PUMP}/versions", versions[0].to_bytes()
    flipped = data[:-5] + bytes([data[-5] ^ 4]) + data[-4:]
    for body in (b"", b"x" * 100, data[:-1], flipped, b"\xff" * 8 + data):
        assert (await pump.http.post(path, content=body, headers=OCTETS)).status_code == 422
    kind = {"content-type": "application/json"}
    assert (await pump.http.post(path, content=b"{}", headers=kind)).status_code == 415
    await pump.make("narrow", dimension=2)
    answer = await pump.http.post("/v1/detectors/narrow/versions", content=data, headers=OCTETS)
    assert answer.status_code == 422
    refused = await pump.http.post("/v1/detectors/no/versions", content=data, headers=OCTETS)
    assert refused.status_code == 404


@pytest.mark.parametrize(
    "broken",
    [
        {"lineage": []},
        {"lineage.evidence": []},
        {"lineage.evidence.old": {"candidate": "x"}},
        {"lineage.regimes": [{"number": 1}]},
        {"lineage.learned": -(10**15)},
        {"lineage.learned": 2**64 - 1},
        {"lineage.advice": "\ud800"},
        {"config.features": [1, 2, 3]},
        {"shape.noise_floor": None},
    ],
)
async def test_wrong_content_with_right_hashes_is_refused(
    pump: Running, versions: Versions, broken: dict[str, object]
) -> None:
    """An artifact with right hashes and wrong content is 422, and list and metrics still answer."""
    tensors, description = artifact.decode(versions[0].to_bytes())
    description.pop("format")
    for path, value in broken.items():
        *owners, last = path.split(".")
        functools.reduce(dict.__getitem__, owners, description)[last] = value
    data = artifact.encode(tensors, description)
    sent = await pump.http.post(f"{PUMP}/versions", content=data, headers=OCTETS)
    assert sent.status_code == 422
    assert (await pump.http.get("/v1/detectors")).json()["detectors"][0]["champion"] == 1
    assert (await pump.http.get("/metrics")).status_code == 200


async def test_the_old_version_serves_if_the_new_one_does_not_load(pump: Running) -> None:
    """The old version stays in service, the status says so, and a rollback by hand works."""
    await pump.promote(b"no artifact at all")
    for _ in range(2):
        assert await pump.parts.watcher.refresh("pump") is not None
        scored = (await pump.http.post(f"{PUMP}/score", json=ZEROS)).json()
        assert (scored["version"], scored["generation"]) == (1, 1)
        status = (await pump.http.get(PUMP)).json()
        assert (status["champion"], status["generation"]) == (1, 1)
    assert (await pump.http.get("/v1/detectors")).json()["detectors"] == [status]
    back = await pump.http.put(f"{PUMP}/champion", json={"version": 1})
    assert (back.status_code, back.json()["generation"]) == (200, 3), back.text
    scored = (await pump.http.post(f"{PUMP}/score", json=ZEROS)).json()
    assert (scored["version"], scored["generation"]) == (1, 3)


async def test_a_lack_of_memory_is_not_the_fault_of_an_artifact(
    pump: Running, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lacks memory answers 503 with the cause. Later the same version serves."""
    imported = {"content": versions[0].to_bytes(), "headers": OCTETS}
    with monkeypatch.context() as patched:
        patched.setattr("models.version.version.exercise", _without_memory)
        refused = await pump.http.post(f"{PUMP}/versions", **imported)
    assert (await pump.http.post(f"{PUMP}/versions", **imported)).status_code == 201
    promoted: dict[str, Any] = {"url": f"{PUMP}/champion", "json": {"version": 2}}
    with monkeypatch.context() as patched:
        patched.setattr("service.swap.watcher.prepared", _without_memory)
        answers = [refused, await pump.http.put(**promoted)]
    with monkeypatch.context() as patched:
        patched.setattr("service.scoring.core.judge", _without_memory)
        answers.append(await pump.http.post(f"{PUMP}/score", json=ZEROS))
    for answer in answers:
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/busy"), answer.text
        assert "memory" in answer.json()["detail"]
    assert (await pump.http.put(**promoted)).status_code == 200


def _without_memory(*_: object) -> None:
    raise MemoryError


async def test_an_error_in_one_detector_affects_no_other(pump: Running, versions: Versions) -> None:
    """An error in one detector, in memory or in the store, does not affect other detectors."""
    for name in ("odd", "torn"):
        await pump.make(name)
        await pump.learn(versions[0], name)
        await pump.serving(1, name)
    served = pump.parts.champions.get("odd")
    assert served is not None
    wrong = {"evidence": {"old": "x"}, "regimes": [{"number": 1}]}
    broken = served.version.with_lineage(**wrong)
    pump.parts.champions.install(replace(served, version=broken))
    await pump.parts.stores.redis.hset(Keys("torn").state, "generation", "many")
    listed = (await pump.http.get("/v1/detectors")).json()["detectors"]
    assert [(detector["name"], "broken" in detector) for detector in listed] == [
        ("odd", True),
        ("pump", False),
    ]
    assert "broken" in (await pump.http.get("/v1/detectors/odd")).json()
    pages = [await pump.http.get(path) for path in ("/", "/detectors/odd")]
    assert [page.status_code for page in pages] == [200, 200]
    assert all("cannot be shown" in page.text for page in pages)
    page = (await pump.http.get("/metrics")).text
    for metric in ("threshold", "champion_version", "buffer_vectors"):
        assert f'anamnesis_{metric}{{detector="pump"}}' in page
    await pump.serve(versions[1])


async def test_a_promotion_reaches_every_process_within_two_seconds(
    store_url: str, versions: Versions
) -> None:
    """A promotion or a config of one process is in effect in another within 2 s."""
    async with running(store_url) as first, running(store_url) as other:
        await first.make()
        await first.learn(versions[0])
        await other.serving(1)
        assert (await other.http.post(f"{PUMP}/score", json=ZEROS)).status_code == 200
        await first.learn(versions[1])
        await first.http.put(f"{PUMP}/champion", json={"version": 2})
        await other.serving(2)
        await first.make("new")
        answer = await other.http.post("/v1/detectors/new/score", json=ZEROS)
        assert answer.status_code == 409
