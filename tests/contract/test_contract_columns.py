"""A detector with columns and a context over HTTP: what its config, batches and answers say."""

import json

import numpy as np
import pytest

from models import Config, train
from service.domain.words import worded as with_words
from tests.contract.running import Running

pytestmark = pytest.mark.anyio

COLUMNS = [{"name": "speed"}, {"name": "temp"}, {"name": "valve", "type": "flag"}]
CONTEXT = {"over": 3}
RNG = np.random.default_rng(0)


def records(n: int) -> list[dict[str, object]]:
    """Return n rows by name."""
    return [
        {"speed": float(speed), "temp": float(temp), "valve": bool(valve)}
        for speed, temp, valve in zip(
            RNG.normal(size=n), RNG.normal(size=n), RNG.random(n) < 0.5, strict=True
        )
    ]


async def test_context_and_columns_are_fixed_by_the_first_rows(api: Running) -> None:
    """Normal rows are derived and counted; then context and number of columns cannot change."""
    await api.make(columns=COLUMNS, context=CONTEXT)
    body = {"records": records(20), "sources": ["a", "b"] * 10}
    stored = await api.http.post("/v1/detectors/pump/normal", json=body)
    assert stored.status_code == 202, stored.text
    assert stored.json()["accepted"] == 14
    assert stored.json()["not_learned"] == {"warming": 6}
    status = (await api.http.get("/v1/detectors/pump")).json()
    assert (status["buffered"], status["dimension"]) == (14, 3)
    assert status["config"]["context"]["over"] == 3
    kept = await api.http.put("/v1/detectors/pump", json={})
    assert kept.status_code == 200
    assert kept.json()["context"]["over"] == 3
    assert [column["name"] for column in kept.json()["columns"]] == ["speed", "temp", "valve"]
    for change in ({"context": {"over": 4}}, {"columns": COLUMNS[:2]}, {"dimension": 5}):
        refused = await api.http.put("/v1/detectors/pump", json=change)
        assert refused.status_code in {409, 422}, change


async def test_a_batch_of_context_rows_alone_stores_nothing(api: Running) -> None:
    """A batch in which all rows are only context stores nothing, and the answer says so."""
    await api.make(columns=COLUMNS, context=CONTEXT)
    body = {"records": records(3), "context_rows": 3}
    stored = await api.http.post("/v1/detectors/pump/normal", json=body)
    assert stored.status_code == 202, stored.text
    assert stored.json()["accepted"] == 0
    assert stored.json()["not_learned"] == {"context": 3}


async def test_a_first_batch_without_names_fixes_the_columns(api: Running) -> None:
    """After a first batch without names the dimension is the number of columns."""
    await api.make(context=CONTEXT)
    rows = RNG.normal(size=(20, 4)).tolist()
    assert (await api.http.post("/v1/detectors/pump/normal", json={"vectors": rows})).is_success
    assert (await api.http.get("/v1/detectors/pump")).json()["dimension"] == 4
    narrow = await api.http.post("/v1/detectors/pump/normal", json={"vectors": [[1, 2, 3]]})
    assert narrow.status_code == 422
    assert (narrow.json()["row"], narrow.json()["column"]) == (0, 3)


WORDED = [{"name": "speed"}, {"name": "status", "type": "category"}]


def records_with_words(n: int) -> list[dict[str, object]]:
    """Return n rows in which the speed depends on a word."""
    return [
        {"speed": 50.0 * run + float(RNG.normal()), "status": "run" if run else "idle"}
        for run in (i % 2 for i in range(n))
    ]


async def learn_words(api: Running) -> None:
    """Make a detector with a category, and serve a version that learned records with words."""
    await api.make(columns=WORDED, kind="mahalanobis", off={"column": "status", "in": ["off"]})
    stored = await api.http.post(
        "/v1/detectors/pump/normal", json={"records": records_with_words(200)}
    )
    assert (stored.status_code, stored.json()["accepted"]) == (202, 200), stored.text
    detector = await api.parts.stores.detectors.get("pump")
    experience = await api.parts.stores.buffer.take("pump")
    assert detector is not None
    assert experience is not None
    words = await api.parts.stores.words.all("pump")
    config = with_words(detector.config, experience.vectors, words)
    await api.learn(train(None, experience.vectors, Config.from_dict(config.to_dict())))
    await api.serving(1)


async def test_a_detector_with_categories_is_no_ready_model(api: Running) -> None:
    """Under /v2 a detector that takes only rows by name is not ready, and the answer says why."""
    await learn_words(api)
    (listed,) = (await api.http.post("/v2/repository/index")).json()
    why = "A detector with a category takes its rows by name, at /v1."
    assert listed == {"name": "pump", "state": "UNAVAILABLE", "reason": why}
    assert (await api.http.post("/v2/repository/index", json={"ready": True})).json() == []
    for method, path in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
        answer = await api.http.request(method, f"/v2/models/pump{path}", json={})
        assert (answer.status_code, answer.json()) == (409, {"error": why})


async def test_a_category_works_in_every_content_type(api: Running) -> None:
    """A category works by name in every content type, and its words return in the answers."""
    await learn_words(api)
    rows = [
        *records_with_words(4),
        {"speed": 50.0, "status": "jammed"},
        {"speed": 0.0, "status": "off"},
    ]
    answer = await api.http.post("/v1/detectors/pump/score?explain=2", json={"records": rows})
    assert answer.status_code == 200, answer.text
    scored = answer.json()
    assert scored["is_anomaly"] == [False] * 4 + [True, None]
    assert scored["states"][-1] == "off"
    assert scored["attributions"][4][0]["feature"] == "status"
    assert scored["attributions"][4][0]["value"] == "jammed"
    assert scored["attributions"][4][0]["expected"] == "run"

    lines = "\n".join(json.dumps({"record": row}) for row in rows)
    table = "status,speed\n" + "\n".join(f"{row['status']},{row['speed']}" for row in rows)
    for kind, body in (("application/x-ndjson", lines), ("text/csv", table)):
        other = await api.http.post(
            "/v1/detectors/pump/score", content=body, headers={"content-type": kind}
        )
        assert other.json()["scores"] == scored["scores"], other.text

    sample = (await api.http.get("/v1/detectors/pump/versions/1/sample?n=20")).json()
    assert {row[1] for row in sample["vectors"]} == {"run", "idle"}
    await api.parts.reporter.flush()
    events = (await api.http.get("/v1/detectors/pump/events")).json()["events"]
    assert {event["vector"][1] for event in events} == {"jammed"}
    assert events[0]["attributions"][0]["value"] == "jammed"


async def test_rows_by_position_are_refused_for_categories(api: Running) -> None:
    """Rows by position cannot hold words: each such type is refused, with the types that can."""
    await api.make(columns=WORDED, dimension=2)
    path = "/v1/detectors/pump/normal"
    octets = {"content-type": "application/octet-stream"}
    for refused in (
        await api.http.post(path, json={"vectors": [[1, 2]]}),
        await api.http.post(path, content=bytes(8), headers=octets),
        await api.http.post(path, json={"records": [{"speed": 1, "status": 0.5}]}),
        await api.http.post(path, json={"records": [{"speed": 1, "status": ""}]}),
        await api.http.post(path, json={"records": [{"speed": 1, "status": "x" * 129}]}),
        await api.http.post(
            "/v1/detectors/pump/feedback", json={"labels": [{"label": "normal", "vector": [1, 2]}]}
        ),
        await api.http.put(
            "/v1/detectors/pump",
            json={"columns": WORDED, "ignore": [{"column": "status", "above": 1}]},
        ),
        await api.http.put(
            "/v1/detectors/pump", json={"columns": WORDED, "off": {"column": "status", "in": [1]}}
        ),
    ):
        assert refused.status_code == 422, refused.text
    await api.http.post(path, json={"records": records_with_words(4)})
    numbers = [{"name": "speed"}, {"name": "status"}]
    changed = await api.http.put("/v1/detectors/pump", json={"columns": numbers})
    assert changed.status_code == 409, changed.text
