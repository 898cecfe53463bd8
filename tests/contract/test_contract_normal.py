"""`normal`, `events`, `feedback`, `quarantine`, `drift`: the answers of the contract."""

from typing import Any

import msgspec
import numpy as np
import pytest

from service.domain.drift_report import Drift
from service.store.live_summaries import MonitorMemory
from tests.contract.running import Running, running
from tests.service.trained import Versions
from tests.waiting import until

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
BATCH = {"vectors": [[1, 2, 3], [4, 5, 6]]}


async def test_a_batch_is_buffered_and_fixes_the_dimension(api: Running) -> None:
    """A batch is answered 202 with what was stored; the first batch fixes the dimension."""
    await api.make()
    answer = await api.http.post(f"{PUMP}/normal", json=BATCH)
    assert answer.status_code == 202
    body = answer.json()
    assert body.keys() == {"batch_id", "accepted", "quarantined", "duplicate", "buffered"}
    assert (body["accepted"], body["duplicate"], body["buffered"]) == (2, 0, 2)
    other = await api.http.post(f"{PUMP}/normal", json={"vectors": [[1, 2]]})
    assert other.status_code == 422
    octets = {"content-type": "application/octet-stream"}
    more = await api.http.post(f"{PUMP}/normal", content=b"\0" * 24, headers=octets)
    assert more.json()["buffered"] == 4
    assert (await api.http.get(PUMP)).json()["buffered"] == 4
    page = (await api.http.get("/metrics")).text
    assert 'normal_vectors_total{detector="pump",outcome="accepted"} 4.0' in page


async def test_octet_stream_is_refused_before_the_dimension_is_known(api: Running) -> None:
    """Octet-stream does not say the dimension: it is 422 while the detector has none."""
    await api.make()
    octets = {"content-type": "application/octet-stream"}
    answer = await api.http.post(f"{PUMP}/normal", content=b"\0" * 24, headers=octets)
    assert answer.status_code == 422
    await api.make(dimension=3)
    answer = await api.http.post(f"{PUMP}/normal", content=b"\0" * 24, headers=octets)
    assert answer.status_code == 202


async def test_a_repeated_batch_is_stored_once(api: Running) -> None:
    """The same matrix under the same key gets the first answer again; another matrix is 422."""
    await api.make()
    key = {"idempotency-key": "k-1"}
    first = (await api.http.post(f"{PUMP}/normal", json=BATCH, headers=key)).json()
    same = np.array(BATCH["vectors"], "<f4").tobytes()
    octets = key | {"content-type": "application/octet-stream"}
    again = await api.http.post(f"{PUMP}/normal", content=same, headers=octets)
    assert again.status_code == 202
    assert again.json() == first | {"duplicate": 2}
    other = await api.http.post(f"{PUMP}/normal", json={"vectors": [[1, 2, 4]]}, headers=key)
    assert other.status_code == 422
    assert (await api.http.get(PUMP)).json()["buffered"] == 2


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, b"\xc3\xa9"])
async def test_invalid_idempotency_keys_are_refused(api: Running, key: str | bytes) -> None:
    """An idempotency key has 1 to 255 visible ASCII characters."""
    await api.make()
    answer = await api.http.post(f"{PUMP}/normal", json=BATCH, headers=[(b"idempotency-key", key)])
    assert answer.status_code == 400


async def test_a_batch_beyond_the_bound_is_refused_whole(store_url: str) -> None:
    """A batch beyond the bound is 429 with Retry-After, and nothing is stored."""
    async with running(store_url, buffer_max_vectors=32) as api:
        await api.make()
        await api.http.post(f"{PUMP}/normal", json={"vectors": [[0, 0]] * 31})
        answer = await api.http.post(f"{PUMP}/normal", json={"vectors": [[0, 0]] * 2})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        # A batch that would not fit an empty buffer is not worth a retry.
        answer = await api.http.post(f"{PUMP}/normal", json={"vectors": [[0, 0]] * 33})
        assert (answer.status_code, "retry-after" in answer.headers) == (413, False)
        assert (await api.http.get(PUMP)).json()["buffered"] == 31


async def test_bad_batches_are_refused_with_the_place(api: Running) -> None:
    """Bad vectors are 422 with their place, unknown detectors 404, unknown types 415."""
    await api.make()
    body = b'{"vectors": [[1, 2], [3, NaN]]}'
    bad = await api.http.post(
        f"{PUMP}/normal", content=body, headers={"content-type": "application/json"}
    )
    assert (bad.status_code, bad.json()["row"], bad.json()["column"]) == (422, 1, 1)
    ragged = (await api.http.post(f"{PUMP}/normal", json={"vectors": [[1], [1, 2]]})).json()
    assert ragged["row"] == 1
    assert (await api.http.post("/v1/detectors/no/normal", json=BATCH)).status_code == 404
    for kind, status in (("application/vnd.apache.arrow.stream", 422), ("application/x-no", 415)):
        headers = {"content-type": kind}
        answer = await api.http.post(f"{PUMP}/normal", content=b"x", headers=headers)
        assert answer.status_code == status, answer.text


async def test_events_and_vectors_can_be_labelled(pump: Running) -> None:
    """Anomalies become events; labels by event or by vector are kept, and normals are buffered."""
    vectors = [[0, 0, 0], [60, 60, 60]]
    scored = (await pump.http.post(f"{PUMP}/score", json={"vectors": vectors})).json()
    assert scored["is_anomaly"] == [False, True]
    await pump.parts.reporter.flush()
    (event,) = (await pump.http.get(f"{PUMP}/events")).json()["events"]
    assert event["vector"] == [60, 60, 60]
    assert event["score"] == pytest.approx(scored["scores"][1])
    assert (event["version"], event["p_value"]) == (1, pytest.approx(scored["p_values"][1]))
    assert len(event["attributions"]) == 3
    labels = [
        {"label": "normal", "event": event["id"]},
        {"label": "anomaly", "vector": [9, 9, 9]},
    ]
    answer = await pump.http.post(f"{PUMP}/feedback", json={"labels": labels})
    assert answer.status_code == 200
    assert answer.json() == {
        "labels": 2, "normal": 1, "anomaly": 1, "buffered": 1, "quarantined": 0,
        "effect": "1 row labelled normal is learned at the next retraining. `retrain` starts "
        "one now, however few rows they are.",
    }  # fmt: skip
    kept = await pump.parts.stores.labels.latest("pump")
    assert {label.label for label in kept} == {"normal", "anomaly"}


async def test_feedback_moves_the_threshold(pump: Running) -> None:
    """Under the policy `labels` the threshold lies between the labelled scores, near their middle.

    The threshold moves by at most a factor of ten in p. The status says how many labels there are,
    and how many are needed.
    """
    config = {"threshold": {"labels": {"miss": 10, "false_alarm": 1}}}
    assert (await pump.http.put(PUMP, json=config)).status_code == 200
    before = (await pump.http.get(PUMP)).json()
    assert before["calibration"] == "insufficient"
    assert before["labels"] == {"anomaly": 0, "normal": 0, "needed": 5}
    vectors = [[k, k, k] for k in range(4, 9)] + [[k / 9, 0, 0] for k in range(5)]
    kinds = ["anomaly"] * 5 + ["normal"] * 5
    labels = [{"label": label, "vector": x} for label, x in zip(kinds, vectors, strict=True)]
    assert (await pump.http.post(f"{PUMP}/feedback", json={"labels": labels})).status_code == 200
    answer = (await pump.http.post(f"{PUMP}/score", json={"vectors": vectors})).json()
    assert answer["is_anomaly"] == [True] * 5 + [False] * 5
    scores = answer["scores"]
    middle = (min(scores[:5]) + max(scores[5:])) / 2
    assert max(scores[5:]) < answer["threshold"] <= middle * (1 + 1e-6)
    status = (await pump.http.get(PUMP)).json()
    assert {"anomaly": 5, "normal": 5, "needed": 5}.items() <= status["labels"].items()
    assert status["config_revision"] == before["config_revision"] + 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422), ({"labels": []}, 422),
        ({"labels": [{"label": "maybe4171", "vector": [1]}]}, 422),
        ({"labels": [{"label": "normal"}]}, 422),
        ({"labels": [{"label": "normal", "vector": [1, 2]}]}, 422),
        ({"labels": [{"label": "normal", "vector": [1, 2, 1e39]}]}, 422),
        ({"labels": [{"label": "normal", "vector": [1, 2, 3], "event": "1-0"}]}, 422),
        ({"labels": [{"label": "normal", "event": "1-0"}]}, 404),
        ({"labels": [{"label": "normal", "event": "marker4171"}]}, 404),
        ({"labels": [{"marker4171": 1}]}, 422),
    ],
)  # fmt: skip
async def test_malformed_feedback_is_refused(pump: Running, body: Any, status: int) -> None:
    """Feedback that names no label, or both an event and vectors, is refused."""
    answer = await pump.http.post(f"{PUMP}/feedback", json=body)
    assert answer.status_code == status, answer.text
    assert "4171" not in answer.text


async def test_a_parked_experience_is_released_or_discarded_once(
    pump: Running, versions: Versions
) -> None:
    """A parked experience is listed, and can be released or discarded once."""
    path = f"{PUMP}/quarantine"
    await pump.learn(versions[1], good=False)
    (entry,) = (await pump.http.get(path)).json()["quarantine"]
    assert (entry["kind"], entry["vectors"], entry["version"]) == ("experience", 40, 2)
    refused = await pump.http.post(f"{path}/{entry['id']}", json={"decision": "x"})
    assert refused.status_code == 422
    answer = await pump.http.post(f"{path}/{entry['id']}", json={"decision": "release"})
    assert answer.json() == {"id": entry["id"], "decision": "release", "vectors": 40}
    status = (await pump.http.get(PUMP)).json()
    assert (status["buffered"], status["parked"]) == (40, 0)
    for gone in (entry["id"], "nothing", "x" * 200):
        answer = await pump.http.post(f"{path}/{gone}", json={"decision": "discard"})
        assert answer.status_code == 404


async def test_routes_below_an_unknown_detector_are_404(api: Running) -> None:
    """Every route below an unknown detector is 404."""
    for path in ("events", "quarantine", "drift"):
        assert (await api.http.get(f"/v1/detectors/no/{path}")).status_code == 404
    label = {"labels": [{"label": "normal", "vector": [1]}]}
    assert (await api.http.post("/v1/detectors/no/feedback", json=label)).status_code == 404
    decision = {"decision": "release"}
    assert (await api.http.post("/v1/detectors/no/quarantine/x", json=decision)).status_code == 404


async def test_drift_shows_the_document_of_the_monitor_and_its_age(pump: Running) -> None:
    """Drift starts as `none`; then the monitor's document is shown, and that it is stale."""
    assert (await pump.http.get(f"{PUMP}/drift")).json()["state"] == "none"
    stores = pump.parts.stores
    monitor = await stores.leases.seize("pump", 30, "monitor")
    assert monitor is not None
    expected = {"state": "new_regime", "version": 1, "statistics": {"features": []}}
    await stores.live.save(monitor, MonitorMemory("0-0", b""), msgspec.convert(expected, Drift))
    expected |= {"stale": "no worker has reported"}
    assert (await pump.http.get(f"{PUMP}/drift")).json() == expected
    assert (await pump.http.get(PUMP)).json()["drift"] == expected

    async def state_is_exported() -> bool:
        page = (await pump.http.get("/metrics")).text
        return 'drift_state{detector="pump",state="new_regime"} 1.0' in page

    await until(state_is_exported)
