"""`context: auto` over HTTP: the config keeps it, and the first training chooses the context."""

import numpy as np
import pytest

from models import Config, Version, train
from service.domain.raw_batch import RawBatch, RowDetails
from service.settings import Settings
from service.worker.worker import Worker
from tests.contract.running import Running

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
COLUMNS = [{"name": "speed"}, {"name": "temp"}]
RNG = np.random.default_rng(0)
ROWS = np.cumsum(RNG.normal(size=(400, 2)), axis=0) * 0.1
TIMES = [1_767_225_600.0 + 60 * i for i in range(400)]


class Trainer:
    """Trains in this process, as the trainer's process does."""

    async def train(self, job, _report) -> bytes:
        X = np.frombuffer(job.vectors, np.float32).reshape(job.n, job.d)
        previous = Version.from_bytes(job.previous) if job.previous else None
        return train(previous, X, Config.from_dict(job.config)).to_bytes()

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def worker(api: Running, store_url: str) -> Worker:
    """Run a worker beside the API process; it ticks when the test calls it."""
    return Worker(Settings(redis_url=store_url), api.parts.stores.redis, store_url, Trainer())


async def send_normal(
    api: Running, first: int, last: int, *, timed: bool = True, **more: object
) -> dict:
    """Send some rows as normal; return the answer."""
    body = {"vectors": ROWS[first:last].tolist(), **more}
    if timed:
        body["timestamps"] = TIMES[first:last]
    headers = {"idempotency-key": f"{first}-{last}"}
    answer = await api.http.post(f"{PUMP}/normal", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def retrain(api: Running, worker: Worker, number: int) -> dict:
    """Retrain; return the status once the process serves the new version."""
    assert (await api.http.post(f"{PUMP}/retrain")).status_code == 202
    worker.due_detectors.look_again()
    await worker.tick()
    await api.serving(number)
    return (await api.http.get(PUMP)).json()


async def test_a_context_is_chosen_at_the_first_training(api: Running, worker: Worker) -> None:
    """The context follows from all rows sent so far; status and record show it."""
    await api.make(columns=COLUMNS, context="auto", kind="mahalanobis", retrain={"paused": False})
    assert (await send_normal(api, 0, 200))["buffered"] == 200
    assert (await send_normal(api, 190, 350, context_rows=10))["buffered"] == 360
    before = (await api.http.get(PUMP)).json()
    fields = (before["config"]["context"], before["context"], before["dimension"])
    assert fields == ("auto", None, 2)
    refused = await api.http.post(
        f"{PUMP}/feedback", json={"labels": [{"label": "normal", "vector": [1, 2]}]}
    )
    assert refused.status_code == 422
    assert "context" in refused.json()["detail"]

    status = await retrain(api, worker, 1)
    assert status["config"]["context"] == "auto"
    assert (status["dimension"], status["learned"], status["buffered"]) == (2, 360, 0)
    assert status["context"]["chosen"]["over"] == 10
    assert "correlate" in status["context"]["why"]
    record = (await api.http.get(f"{PUMP}/versions/1")).json()
    assert record["context"]["context"] == status["context"]["chosen"]
    assert (record["n_new"], record["dimension"]) == (350 - 10, 4)

    body = {"vectors": ROWS[340:380].tolist(), "timestamps": TIMES[340:380], "context_rows": 10}
    answer = (await api.http.post(f"{PUMP}/score", json=body)).json()
    assert answer["states"] == ["context"] * 10 + ["scored"] * 30
    # A batch sent before the choice is still known by its key; a batch sent now is derived at once.
    assert (await send_normal(api, 0, 200))["duplicate"] == 200
    later = await send_normal(api, 350, 400)
    assert (later["not_learned"], later["accepted"] + later["quarantined"]) == ({"warming": 10}, 40)
    kept = await api.http.put(PUMP, json={"context": "auto", "columns": COLUMNS})
    assert (kept.status_code, kept.json()["context"]) == (200, "auto")
    assert (await api.http.put(PUMP, json={"context": {"over": 4}})).status_code == 409
    status = (await api.http.get(PUMP)).json()
    assert (status["dimension"], status["context"]["chosen"]["over"]) == (2, 10)


async def test_held_back_rows_name_what_the_context_derives(api: Running, worker: Worker) -> None:
    """On the page each value of a row in quarantine has the name of its feature."""
    await api.make(columns=COLUMNS, context="auto", kind="mahalanobis", retrain={"paused": False})
    await send_normal(api, 0, 350)
    await retrain(api, worker, 1)
    odd = ROWS[350:400].copy()
    odd[30:33] += [[90.0, -90.0], [-90.0, 90.0], [90.0, 90.0]]
    assert (await send_normal(api, 350, 400, vectors=odd.tolist()))["quarantined"]
    page = (await api.http.get("/detectors/pump")).text
    table = page[page.index('aria-label="Rows of ') :]
    head, body = table[: table.index("</table>")].split("<tbody>")
    assert "speed, deviation" in head
    assert body[: body.index("</tr>")].count("<td") == head.count("<th scope") == 4


async def test_a_process_without_the_chosen_context_stores_rows(
    api: Running, worker: Worker
) -> None:
    """A process that does not know the choice yet stores rows; the next training derives them."""
    await api.make(columns=COLUMNS, context="auto", kind="mahalanobis", admission="accept")
    await send_normal(api, 0, 200)
    over = (await retrain(api, worker, 1))["context"]["chosen"]["over"]
    X = ROWS[200:300].astype(np.float32)
    beside = RowDetails.of(np.array(TIMES[200:300]), None, 0, None, 100)
    await api.parts.stores.buffer.ingest("pump", X, sent=RawBatch(X, beside))
    status = await retrain(api, worker, 2)
    assert status["learned"] == 300
    record = (await api.http.get(f"{PUMP}/versions/2")).json()
    assert record["n_new"] == 100 - over


async def test_rows_without_timestamps_have_no_context(api: Running, worker: Worker) -> None:
    """Rows without timestamps get no context, and the status says so."""
    await api.make(context="auto", kind="mahalanobis")
    await send_normal(api, 0, 100, timed=False)
    status = await retrain(api, worker, 1)
    assert status["context"]["chosen"] is None
    assert "without timestamps" in status["context"]["why"]
    answer = await api.http.post(f"{PUMP}/score", json={"vectors": ROWS[:3].tolist()})
    assert (answer.status_code, "states" in answer.json()) == (200, False)
