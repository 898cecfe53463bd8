"""Detectors and retraining: the answers of the contract."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from service.domain.detector_config import DetectorConfig
from service.store.redis_keys import Keys
from tests.contract.running import Running, running
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"


async def test_put_creates_then_replaces_the_config(api: Running) -> None:
    """PUT answers 201, then 200, with the config in full; it is idempotent."""
    first = await api.http.put(PUMP, json={})
    assert first.status_code == 201
    assert first.json() == DetectorConfig().to_dict()
    again = await api.http.put(PUMP, json={})
    assert (again.status_code, again.json()) == (200, first.json())
    changed = await api.http.put(PUMP, json={"threshold": {"fpr": 0.05}})
    assert changed.json()["threshold"] == {"fpr": 0.05}
    status = (await api.http.get(PUMP)).json()
    assert status["config_revision"] == 2


async def test_patch_merges_nested_fields_and_replaces_others(api: Running) -> None:
    """PATCH merges `retrain`, `replay` and `model` by field and replaces other fields."""
    await api.make(retrain={"min_vectors": 50}, threshold={"fpr": 0.05}, missing="impute")
    before = (await api.http.get(PUMP)).json()["config"]
    for body, after in (
        ({"retrain": {"paused": True}}, {"retrain": before["retrain"] | {"paused": True}}),
        ({"retrain": {"min_vectors": None}}, {"retrain": before["retrain"] | {
            "paused": True, "min_vectors": None}}),
        ({"model": {"epochs": 3}}, {"model": model(epochs=3)}),
        ({"model": {"dropout": 0.1}}, {"model": model(epochs=3, dropout=0.1)}),
        ({"model": "auto"}, {"model": "auto"}),
        ({"threshold": {"quantile": 0.9}}, {"threshold": {"quantile": 0.9}}),
        ({"incident": {"false_per_day": 3}}, {"incident": {
            "false_per_day": 3, "close_after_seconds": 300}}),
        ({"incident": None}, {"incident": None}),
        ({}, {}),
    ):  # fmt: skip
        answer = await api.http.patch(PUMP, json=body)
        before = before | after
        assert (answer.status_code, answer.json()) == (200, before), body
    revision = (await api.http.get(PUMP)).json()["config_revision"]
    for text in (
        b'{"marker4171": 1}', b'{"seed": NaN}', b'{"retrain": {"marker4171": 1}}', b"[]", b"null",
        b'{"kind": "\\ud800"}', b"\xff", b'{"retrain": ' * 100_000, b"", b'{"retrain": null}',
    ):  # fmt: skip
        refused = await api.http.patch(
            PUMP, content=text, headers={"content-type": "application/json"}
        )
        assert (refused.status_code, "4171" in refused.text) == (422, False), text[:40]
    guarded = await api.http.patch(PUMP, json={"seed": 2}, headers={"if-match": '"7"'})
    assert guarded.status_code == 412
    guarded = await api.http.patch(PUMP, json={"seed": 2}, headers={"if-match": '"0"'})
    assert (guarded.status_code, guarded.json()["seed"]) == (200, 2)
    assert (await api.http.get(PUMP)).json()["config_revision"] == revision + 1
    assert (await api.http.patch("/v1/detectors/other", json={})).status_code == 404


async def test_preconditions_guard_every_change_of_a_detector(pump: Running) -> None:
    """PUT, PATCH and DELETE with a stale tag change nothing, nor does PUT with If-None-Match: *."""
    before = (await pump.http.get(PUMP)).json()
    present, stale = f'"{before["generation"]}"', '"99"'

    async def put(name: str = "pump", **headers: str) -> int:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        answer = await pump.http.put(f"/v1/detectors/{name}", json={"seed": 7}, headers=named)
        return answer.status_code

    assert await put(if_none_match="*") == 412
    assert await put(if_none_match=f'"88", W/{present}') == 412
    assert await put(if_match=stale) == 412
    assert await put("new", if_match="*") == 412
    refused = await pump.http.delete(PUMP, headers={"if-match": stale})
    assert (refused.status_code, refused.json()["generation"]) == (412, before["generation"])
    twice = [("if-none-match", '"9"'), ("if-none-match", "*")]
    assert (await pump.http.put(PUMP, json={"seed": 7}, headers=twice)).status_code == 400
    assert (await pump.http.get(PUMP)).json() == before
    assert (await pump.http.get("/v1/detectors/new")).status_code == 404
    assert await put("new", if_none_match="*") == 201
    assert await put(if_match=present, if_none_match=stale) == 200
    assert (await pump.http.delete(PUMP, headers={"if-match": present})).status_code == 204


async def test_a_merge_patch_follows_its_standard(api: Running) -> None:
    """Objects are merged at every depth, and a null gives the default (RFC 7396)."""
    await api.make(threshold={"fpr": 0.05}, seed=3, model={"epochs": 9, "dropout": 0.1})
    patch = {"threshold": {"fpr": None, "quantile": 0.9}, "seed": None, "model": {"epochs": None}}
    kind = {"content-type": "application/merge-patch+json; charset=utf-8"}
    answer = await api.http.patch(PUMP, content=json.dumps(patch), headers=kind)
    given = {"threshold": {"quantile": 0.9}, "model": {"dropout": 0.1}}
    assert answer.json() == DetectorConfig.from_dict(given).to_dict()
    for text, status in (("[]", 422), ("null", 422), ('{"retrain": 1}', 422), ("{}", 200)):
        refused = await api.http.patch(PUMP, content=text, headers=kind)
        assert refused.status_code == status, text
    assert (await api.http.put(PUMP, content="{}", headers=kind)).status_code == 415


def model(**given: Any) -> dict[str, Any]:
    """Return the config of a network in full."""
    return DetectorConfig.from_dict({"model": given}).to_dict()["model"]


async def test_a_new_policy_moves_the_threshold_before_the_answer(pump: Running) -> None:
    """A new policy moves the threshold before PUT answers, and keeps the version."""
    before = (await pump.http.get(PUMP)).json()
    await pump.make(threshold={"value": 7.25})
    scored = (await pump.http.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})).json()
    assert (scored["threshold"], scored["version"]) == (7.25, 1)
    assert scored["config_revision"] == before["config_revision"] + 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind": "marker4171"}', b'{"marker4171": 1}', b'{"threshold": {"fpr": 2}}',
        b'{"threshold": {"pot": 0.2}}', b'{"weights": "best"}',
        b'{"weights": {"w_prev": 1, "w_new": 0}}',
        b'{"dimension": 0}', b'{"dimension": "4171"}', b'{"features": ["4171", "4171"]}',
        b'{"features": [1]}', b'{"seed": -1}', b'{"seed": 1e999}', b'{"dimension": NaN}',
        b'{"strategy": "marker4171"}', b'{"replay": {"latents": "marker4171"}}',
        b'{"retrain": {"min_vectors": 0}}', b'{"retrain": {"marker4171": 0}}',
        b'{"admission": "refuse"}',
        b'{"gate": "marker4171"}',
        b'{"model": "marker4171"}', b'{"model": {"epochs": "marker4171"}}', b"[]", b"null", b"x",
        b'{"kind": "\\ud800"}', b"\xff", b"[" * 100_000, b'{"retrain": ' * 100_000,
        b'{"threshold": {"marker4171": 1}}', b'{"weights": {"marker4171": 1}}',
        b'{"model": {"hidden": []}}', b'{"missing": "marker4171"}', b'{"score": "marker4171"}',
        b'{"threshold": {"fpr": true}}', b'{"keep_learned_seconds": -1}',
    ],
)  # fmt: skip
async def test_unsupported_configs_are_refused_without_an_echo(api: Running, body: bytes) -> None:
    """A config that this release does not support is 422, and its values are not echoed."""
    answer = await api.http.put(PUMP, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "4171" not in answer.text


async def test_a_refusal_lists_the_supported_choices(api: Running) -> None:
    """The 422 for a choice that is not supported lists the supported ones."""
    answer = await api.http.put(PUMP, json={"strategy": "hebb"})
    assert all(word in answer.json()["detail"] for word in ("strategy", "replay", "finetune"))
    answer = await api.http.put(PUMP, json={"admission": "refuse"})
    assert "accept" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["a" * 65, "-a", "a%20b", "%C3%A9", "a%0a", "_"])
async def test_invalid_detector_names_are_refused(api: Running, name: str) -> None:
    """A name outside the pattern is refused with 4xx."""
    answer = await api.http.put(f"/v1/detectors/{name}", json={})
    assert answer.status_code == 422
    assert (await api.http.get(f"/v1/detectors/{name}")).status_code == 404


async def test_a_trained_detector_keeps_dimension_and_feature_names(pump: Running) -> None:
    """Another dimension, or other feature names, on a trained detector is 409."""
    for config in ({"dimension": 4}, {"features": ["a", "b", "c"]}):
        assert (await pump.http.put(PUMP, json=config)).status_code == 409, config
    assert (await pump.http.put(PUMP, json={"dimension": 3})).status_code == 200


async def test_the_status_has_every_field_of_the_contract(pump: Running) -> None:
    """The status has every field of the contract, and the generation as ETag."""
    answer = await pump.http.get(PUMP)
    status = answer.json()
    assert status.keys() >= {
        "name", "config", "champion", "generation", "config_revision", "threshold", "buffered",
        "quarantined", "parked", "learned", "retraining", "last_retraining", "drift",
    }  # fmt: skip
    assert (status["champion"], status["generation"], status["learned"]) == (1, 1, 40)
    assert status["retraining"] == {
        "state": "idle", "progress": 0.0, "seconds_left": None, "loss_old": None, "loss_new": None
    }  # fmt: skip
    assert status["drift"] == {"state": "none", "stale": "no worker has reported"}
    assert (await pump.http.get(f"{PUMP}/drift")).json() == status["drift"]
    assert status["last_retraining"].keys() >= {
        "outcome", "version", "reasons", "seconds", "finished_at",
    }  # fmt: skip
    assert status["last_retraining"]["finished_at"].endswith("Z")
    assert status["drift"]["state"] == "none"
    assert (
        sum(regime["size"] for regime in status["regimes"]) == 400
    )  # of the version, trained before
    assert sum(regime["learned"] for regime in status["regimes"]) == pytest.approx(1.0)
    assert status["advice"]["budget"] == 1000
    assert status["queries"] == []
    assert answer.headers["etag"] == '"1"'
    listed = (await pump.http.get("/v1/detectors")).json()
    assert listed == {"detectors": [status]}


async def test_the_status_shows_the_served_champion(pump: Running, versions: Versions) -> None:
    """A champion that this process cannot load does not appear as champion; the old one serves."""
    stores = pump.parts.stores
    number = await pump.learn(versions[1], good=False)
    digest = await stores.redis.hget(Keys("pump").artifacts, str(number))
    key = Keys("pump").artifact(digest.decode())
    data = await stores.redis.get(key)
    await stores.redis.set(key, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert await stores.registry.set_champion("pump", number) == 2
    status = (await pump.http.get(PUMP)).json()
    assert (status["champion"], status["generation"]) == (1, 1)
    scored = await pump.http.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})
    assert (scored.json()["version"], scored.json()["generation"]) == (1, 1)
    page = (await pump.http.get("/metrics")).text
    assert 'anamnesis_artifact_failures_total{detector="pump"} 1.0' in page


async def test_a_deleted_detector_is_gone_when_the_answer_comes(pump: Running) -> None:
    """DELETE answers 204 once the detector is gone from this process too."""
    assert (await pump.http.delete(PUMP)).status_code == 204
    assert (await pump.http.delete(PUMP)).status_code == 404
    assert (await pump.http.get(PUMP)).status_code == 404
    scored = await pump.http.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})
    assert scored.status_code == 404


async def test_detectors_are_bounded(store_url: str) -> None:
    """One detector over the bound is 409."""
    async with running(store_url, max_detectors=2) as api:
        await api.make("a")
        await api.make("b")
        assert (await api.http.put("/v1/detectors/c", json={})).status_code == 409


async def test_a_retraining_is_queued_before_the_answer(api: Running) -> None:
    """Retraining is 409 below what a training needs, then 202 with the state already queued."""
    await api.make()
    vectors = np.zeros((31, 2)).tolist()
    await api.http.post(f"{PUMP}/normal", json={"vectors": vectors})
    few = await api.http.post(f"{PUMP}/retrain")
    assert few.status_code == 409
    assert "31" in few.json()["detail"]
    await api.http.post(f"{PUMP}/normal", json={"vectors": [[1, 1]]})
    answer = await api.http.post(f"{PUMP}/retrain", json={"weights": "equal"})
    assert answer.status_code == 202
    assert answer.json()["retraining"]["state"] == "queued"
    assert answer.json()["note"] == "queued; no worker has reported"
    assert (await api.http.get(PUMP)).json()["retraining"]["state"] == "queued"
    assert (await api.http.post("/v1/detectors/nobody/retrain")).status_code == 404


async def test_retrain_with_wait_answers_with_the_outcome(api: Running, versions: Versions) -> None:
    """`wait` answers 200 with the outcome once it is final, and this process serves it."""
    await api.make()
    await api.http.post(f"{PUMP}/normal", json={"vectors": [[0, 0, 1]] * 40})
    over = await api.http.post(f"{PUMP}/retrain", json={"wait": 0.2})
    assert over.status_code == 202
    asked = asyncio.create_task(api.http.post(f"{PUMP}/retrain", json={"wait": 20}))

    async def request_is_stored() -> bool:
        detector = await api.parts.stores.detectors.get("pump")
        return detector is not None and detector.requested == 2

    await until(request_is_stored)
    await api.learn(versions[0])
    answer = await asked
    assert answer.status_code == 200
    last = answer.json()["last_retraining"]
    assert (last["outcome"], last["version"]) == ("promoted", 1)
    scored = await api.http.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})
    assert scored.json()["version"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"wait": 301}, {"wait": -1}, {"wait": "4171"}, {"wait": True}, {"weights": "best"},
        {"weights": {"w_prev": 2, "w_new": -1}}, {"weights": 4171}, {"marker4171": 1},
        {"weights": {"marker4171": 1}}, [], "x",
    ],
)  # fmt: skip
async def test_unknown_options_of_retrain_are_refused(api: Running, body: Any) -> None:
    """Options that a retraining does not have are 422, and are not echoed."""
    await api.make()
    answer = await api.http.post(f"{PUMP}/retrain", json=body)
    assert answer.status_code == 422
    assert "4171" not in answer.text
