"""Templates: the first normal batch of an entity creates its detector."""

import asyncio

import numpy as np
import pytest

from service.client import Client, Refused
from service.domain.detector_config import parse
from tests.contract.running import Running, running
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

TEMPLATE = "/v1/templates/pump"
CONFIG = {"retrain": {"min_vectors": 500}, "incident": None}
ACTIONS = ["created", "configured", "deleted"]
ROWS = {"vectors": [[0.0, 1.0, 2.0], [9.0, 9.0, 9.0]]}
OCTETS = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}


async def test_a_template_is_made_read_and_deleted(api: Running) -> None:
    """PUT answers 201, then 200 with the config in full; an unknown template is 404."""
    assert (await api.http.get(TEMPLATE)).status_code == 404
    made = await api.http.put(TEMPLATE, json=CONFIG)
    assert (made.status_code, made.json()) == (201, parse(CONFIG).to_dict())
    assert (await api.http.put(TEMPLATE, json=CONFIG)).status_code == 200
    new = {"if-none-match": "*"}
    assert (await api.http.put(TEMPLATE, json={}, headers=new)).status_code == 412
    assert (await api.http.get(TEMPLATE)).json() == made.json()
    assert (await api.http.delete(TEMPLATE)).status_code == 204
    assert (await api.http.delete(TEMPLATE)).status_code == 404
    page = (await api.http.get("/v1/audit?of=templates")).json()
    assert [entry["action"].split()[1] for entry in page["audit"]] == ACTIONS
    assert {entry["template"] for entry in page["audit"]} == {"pump"}
    first, changed, last = page["audit"]
    assert (first["from"], first["to"]["config"]) == (None, made.json())
    assert (changed["from"], last["from"], last["to"]) == (first["to"], changed["to"], None)
    assert page["broken"] is None
    assert (await api.http.get("/v1/audit")).json()["audit"] == []
    assert (await api.http.get("/v1/audit?of=pumps")).status_code == 422
    for name, config in (("pump:7", CONFIG), ("a b", CONFIG), ("pump", {"dimension": 0})):
        answer = await api.http.put(f"/v1/templates/{name}", json=config)
        assert answer.status_code == 422, answer.text


async def test_the_first_normal_batch_makes_an_entity(api: Running) -> None:
    """An entity gets the template's config of that moment; a bad batch creates nothing."""
    await api.http.put(TEMPLATE, json=CONFIG)
    path = "/v1/detectors/pump:7"
    bad = await api.http.post(f"{path}/normal", json={"vectors": [[1.0, None]]})
    assert bad.status_code == 422
    assert (await api.http.get(path)).status_code == 404
    for _ in range(2):
        assert (await api.http.post(f"{path}/normal", json=ROWS)).status_code == 202
    await api.http.put(TEMPLATE, json=CONFIG | {"score": "elbo"})
    status = (await api.http.get(path)).json()
    assert (status["name"], status["buffered"]) == ("pump:7", 4)
    assert status["config"]["retrain"]["min_vectors"] == 500
    assert status["config"]["score"] == "auto"
    answer = await api.http.delete(TEMPLATE)
    assert (answer.status_code, answer.json()["entities"]) == (409, 1)
    assert (await api.http.get(TEMPLATE)).status_code == 200
    assert (await api.http.delete(path)).status_code == 204
    assert (await api.http.delete(TEMPLATE)).status_code == 204
    # Without the template no detector is created.
    assert (await api.http.post(f"{path}/normal", json=ROWS)).status_code == 404
    assert (await api.http.put(path, json={})).status_code == 409
    assert (await api.http.post("/v1/detectors/pump:/normal", json=ROWS)).status_code == 404


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_the_template_judges_until_its_entity_has_a_version(
    store_url: str, versions: Versions, fast_lane: bool
) -> None:
    """Scoring creates nothing; the answer names the detector that judged, in JSON and in binary."""
    async with running(store_url, poll_seconds=0.2, fast_lane=fast_lane) as api:
        await api.http.put(TEMPLATE, json=CONFIG)
        path = "/v1/detectors/pump:7"
        assert (await api.http.post(f"{path}/score", json=ROWS)).status_code == 404
        await api.make()
        await api.serve(versions[0])
        of_template = (await api.http.post("/v1/detectors/pump/score", json=ROWS)).json()
        judged = await api.http.post(f"{path}/score", json=ROWS)
        assert judged.json() == of_template | {"detector": "pump:7", "judged_by": "pump"}
        body = np.asarray(ROWS["vectors"], "<f4").tobytes()
        binary = await api.http.post(f"{path}/score", content=body, headers=OCTETS)
        assert binary.headers["x-anamnesis-detector"] == "pump:7"
        assert binary.headers["x-anamnesis-judged-by"] == "pump"
        assert (await api.http.get(path)).status_code == 404

        await api.http.post(f"{path}/normal", json=ROWS)
        assert (await api.http.post(f"{path}/score", json=ROWS)).json() == judged.json()
        await api.learn(versions[1], "pump:7")
        await api.serving(1, "pump:7")
        for _ in range(2):  # the second time the fast lane remembers the head
            of_entity = (await api.http.post(f"{path}/score", json=ROWS)).json()
            assert (of_entity["detector"], "judged_by" in of_entity) == ("pump:7", False)
            assert of_entity["scores"] != of_template["scores"]
        # There is no template `other`, so nothing judges for `other:1`.
        assert (await api.http.post("/v1/detectors/other:1/score", json=ROWS)).status_code == 404


async def test_a_key_for_a_template_is_for_its_entities(api: Running) -> None:
    """A key for a template is valid for its entities, and for no other detector."""
    await api.http.put(TEMPLATE, json=CONFIG)
    grant = {"name": "gateway", "scopes": ["ingest", "read"], "detectors": ["pump"]}
    admin = (await api.http.post("/v1/keys", json={"name": "me", "scopes": ["admin"]})).json()
    api.http.headers["authorization"] = f"Bearer {admin['key']}"
    key = (await api.http.post("/v1/keys", json=grant)).json()["key"]
    api.http.headers["authorization"] = f"Bearer {key}"
    sent = await api.http.post("/v1/detectors/pump:7/normal", json=ROWS)
    assert sent.status_code == 202, sent.text
    listed = (await api.http.get("/v1/detectors")).json()["detectors"]
    assert [detector["name"] for detector in listed] == ["pump:7"]
    for foreign in ("pumps:7", "other:7", "other"):
        answer = await api.http.post(f"/v1/detectors/{foreign}/normal", json=ROWS)
        assert answer.status_code == 404


async def test_entities_are_bounded_beside_detectors(store_url: str) -> None:
    """Entities have a bound of their own and do not count as detectors."""
    bounds = {"max_detectors": 1, "max_entities": 2}
    async with running(store_url, poll_seconds=0.2, **bounds) as api:
        await api.http.put(TEMPLATE, json=CONFIG)
        codes = [
            (await api.http.post(f"/v1/detectors/pump:{i}/normal", json=ROWS)).status_code
            for i in range(3)
        ]
        assert codes == [202, 202, 409]
        made = [(await api.http.put(f"/v1/detectors/d{i}", json={})).status_code for i in (0, 1)]
        assert made == [201, 409]


async def test_another_process_knows_a_template_after_its_poll(
    store_url: str, api: Running
) -> None:
    """Another process knows a template after its next poll."""
    async with running(store_url, poll_seconds=0.2) as other:
        await api.http.put(TEMPLATE, json=CONFIG)

        async def template_is_known() -> bool:
            return "pump" in other.parts.champions.templates

        await until(template_is_known)


async def test_the_client_creates_reads_and_deletes_templates(api: Running) -> None:
    """The client creates, reads and deletes templates."""

    def use_the_client() -> None:
        with Client(str(api.http.base_url)) as client:
            assert client.create_template("pump", {})["score"] == "auto"
            assert client.template("pump")["score"] == "auto"
            client.delete_template("pump")
            with pytest.raises(Refused):
                client.template("pump")

    await asyncio.to_thread(use_the_client)
