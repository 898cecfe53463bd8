"""How the champion judges normal batches, over HTTP."""

import numpy as np
import pytest

from tests.contract.running import Running

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
RNG = np.random.default_rng(3)


def known(n: int) -> np.ndarray:
    """Return normals (n, 3) like those that version 1 learned."""
    return RNG.normal(size=(n, 3))


def scattered(n: int) -> np.ndarray:
    """Return rows (n, 3), each far out in a direction of its own."""
    directions = RNG.normal(size=(n, 3))
    sizes = RNG.uniform(20, 60, size=(n, 1))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * sizes


async def send(api: Running, X: np.ndarray, **headers: str) -> dict:
    """Return the 202 to a batch."""
    answer = await api.http.post(f"{PUMP}/normal", json={"vectors": X.tolist()}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_anomalies_in_a_normal_batch_are_held_back(pump: Running) -> None:
    """Anomalies in a normal batch are counted and listed; a person releases or discards them."""
    body = await send(pump, np.concatenate([known(180), scattered(20)]))
    assert (body["accepted"], body["quarantined"]) == (180, 20)
    assert body["suspicious"] == pytest.approx(0.1)
    assert body["known"] + body["novel"] + body["suspicious"] == pytest.approx(1.0)
    status = (await pump.http.get(PUMP)).json()
    assert (status["buffered"], status["quarantined"]) == (180, 20)
    (entry,) = (await pump.http.get(f"{PUMP}/quarantine")).json()["quarantine"]
    assert (entry["kind"], entry["vectors"], entry["version"]) == ("rows", 20, 1)
    assert entry["batch_id"] == body["batch_id"]
    where = f"{PUMP}/quarantine/{entry['id']}"
    shown = (await pump.http.get(where)).json()
    assert np.shape(shown["vectors"]) == (20, 3)
    decided = await pump.http.post(where, json={"decision": "release"})
    assert decided.json() == {"id": entry["id"], "decision": "release", "vectors": 20}
    status = (await pump.http.get(PUMP)).json()
    assert (status["buffered"], status["quarantined"]) == (200, 0)
    assert (await pump.http.get(where)).status_code == 404
    page = (await pump.http.get("/metrics")).text
    assert 'normal_vectors_total{detector="pump",outcome="quarantined"} 20.0' in page


async def test_a_new_regime_is_buffered_and_reported_as_novel(pump: Running) -> None:
    """A new regime is reported as novel, not as suspicious."""
    body = await send(pump, known(200) + 30)
    assert (body["accepted"], body["quarantined"], body["novel"]) == (200, 0, 1.0)


async def test_a_repeated_batch_gets_its_first_answer(pump: Running) -> None:
    """A repeated batch gets its first answer, with the number of rows held back then."""
    X, key = np.concatenate([known(90), scattered(10)]), {"idempotency-key": "k"}
    first = await send(pump, X, **key)
    assert first["quarantined"] == 10
    assert await send(pump, X, **key) == first | {"duplicate": 100}
    assert (await pump.http.get(PUMP)).json()["quarantined"] == 10


async def test_a_new_regime_enters_row_by_row(pump: Running) -> None:
    """The first rows of a new regime wait; once there are enough of them, the next ones pass."""
    answers = [await send(pump, known(1) + 30) for _ in range(40)]
    assert answers[0]["quarantined"] == 1
    assert answers[-1]["accepted"] == 1
    counted = sum(answer["accepted"] + answer["quarantined"] for answer in answers)
    status = (await pump.http.get(PUMP)).json()
    assert status["buffered"] + status["quarantined"] == counted == 40


async def test_before_a_champion_every_row_is_buffered(api: Running) -> None:
    """Before there is a champion all rows pass, because nothing can judge them."""
    await api.make()
    body = await send(api, scattered(50))
    assert (body["accepted"], body["quarantined"]) == (50, 0)
    assert "known" not in body


@pytest.mark.parametrize(
    ("admission", "kept"), [("accept", 400), ("quarantine", 399), ("triage", 100)]
)
async def test_triage_thins_and_accept_judges_nothing(
    pump: Running, admission: str, kept: int
) -> None:
    """`triage` keeps a quarter of what is well known; `accept` judges nothing."""
    await pump.make(admission=admission)
    X = known(400)
    body = await send(pump, X)
    assert abs(body["accepted"] - kept) <= 3
    if admission == "triage":
        assert body["thinned"] == 400 - body["accepted"]
        assert (await pump.http.get(PUMP)).json()["thinned"] == body["thinned"]
    assert ("known" in body) == (admission != "accept")


async def test_a_vector_labelled_normal_goes_through_admission(pump: Running) -> None:
    """A vector that is labelled normal and is not a recorded event goes through admission."""
    for vector, buffered in (([50.0, -50.0, 50.0], 0), ([0.0, 0.0, 0.0], 1)):
        labels = [{"label": "normal", "vector": vector}]
        answer = await pump.http.post(f"{PUMP}/feedback", json={"labels": labels})
        assert answer.json()["buffered"] == buffered
    assert (await pump.http.get(PUMP)).json()["quarantined"] == 1
