"""A detector with columns and a context over HTTP: what its config, batches and answers say."""

import numpy as np
import pytest

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


async def test_a_context_stays_while_rows_are_held(api: Running) -> None:
    """Normal rows are derived and counted; neither context nor the number of columns can change."""
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
    assert [one["name"] for one in kept.json()["columns"]] == ["speed", "temp", "valve"]
    for change in ({"context": {"over": 4}}, {"columns": COLUMNS[:2]}, {"dimension": 5}):
        refused = await api.http.put("/v1/detectors/pump", json=change)
        assert refused.status_code in {409, 422}, change


async def test_rows_that_are_all_context_are_no_batch(api: Running) -> None:
    """Nothing is stored of them, and the answer says so."""
    await api.make(columns=COLUMNS, context=CONTEXT)
    body = {"records": records(3), "context_rows": 3}
    stored = await api.http.post("/v1/detectors/pump/normal", json=body)
    assert stored.status_code == 202, stored.text
    assert stored.json()["accepted"] == 0
    assert stored.json()["not_learned"] == {"context": 3}


async def test_a_first_batch_without_names_fixes_the_columns(api: Running) -> None:
    """The dimension is the number of columns, not of the features derived of them."""
    await api.make(context=CONTEXT)
    rows = RNG.normal(size=(20, 4)).tolist()
    assert (await api.http.post("/v1/detectors/pump/normal", json={"vectors": rows})).is_success
    assert (await api.http.get("/v1/detectors/pump")).json()["dimension"] == 4
    narrow = await api.http.post("/v1/detectors/pump/normal", json={"vectors": [[1, 2, 3]]})
    assert narrow.status_code == 422
    assert (narrow.json()["row"], narrow.json()["column"]) == (0, 3)
