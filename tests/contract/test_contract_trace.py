"""How a request is found again: by its trace in the experience, by its id in the log."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from service import log
from service.settings import Settings
from tests.contract.running import Running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
BATCH = {"vectors": [[1, 2, 3], [4, 5, 6]]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("headers", "traces"),
    [
        ([f"00-{TRACE}-{PARENT}-01"], (TRACE,)),
        ([f"cc-{TRACE}-{PARENT}-01-what-comes-later"], (TRACE,)),
        ([], ()),
        ([f"00-{TRACE}-{PARENT}-01-more"], ()),
        ([f"ff-{TRACE}-{PARENT}-01"], ()),
        ([f"00-{'0' * 32}-{PARENT}-01"], ()),
        ([f"00-{TRACE}-{'0' * 16}-01"], ()),
        ([f"00-{TRACE.upper()}-{PARENT}-01"], ()),
        ([f"00-{TRACE}-{PARENT}-01"] * 2, ()),
    ],
)
async def test_a_batch_keeps_its_trace(
    api: Running, headers: list[str], traces: tuple[str, ...]
) -> None:
    """A valid `traceparent` is stored with the batch; an invalid one is ignored."""
    await api.make()
    named = [("traceparent", header) for header in headers]
    answer = await api.http.post(f"{PUMP}/normal", json=BATCH, headers=named)
    assert answer.status_code == 202
    experience = await api.parts.stores.buffer.take("pump")
    assert experience is not None
    assert experience.traces == traces


async def test_rows_that_were_held_back_keep_their_trace(api: Running, versions: Versions) -> None:
    """Rows that were held back and released keep the trace of the request that sent them."""
    await api.make(admission="quarantine")
    await api.serve(versions[0])
    far = np.random.default_rng(3).normal(size=(40, 3)) * 40
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    sent = {"vectors": far.tolist()}
    answer = await api.http.post(f"{PUMP}/normal", json=sent, headers=headers)
    assert answer.json()["quarantined"] >= 32
    (entry,) = (await api.http.get(f"{PUMP}/quarantine")).json()["quarantine"]
    decision = {"decision": "release"}
    released = await api.http.post(f"{PUMP}/quarantine/{entry['id']}", json=decision)
    assert released.status_code == 200
    experience = await api.parts.stores.buffer.take("pump")
    assert experience is not None
    assert experience.traces == (TRACE,)


@pytest.fixture
def lines() -> Iterator[Any]:
    """Log as a process does; yield a function that returns the lines so far."""
    root, written = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    log.configure(Settings(log_format="json"), "api")
    root.handlers[0].setStream(written)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_every_answer_names_its_request(
    api: Running, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer has a request id, the client's if that is valid, and so has a failure's log."""
    await api.make()
    for given in ("job-7.a_B", "x" * 64):
        answer = await api.http.get("/nowhere", headers={"x-request-id": given})
        assert answer.headers["x-request-id"] == given
    for given in ("x" * 65, "a b", "{}", ""):
        answer = await api.http.get(PUMP, headers={"x-request-id": given})
        assert answer.headers["x-request-id"] not in {given, ""}

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("service.api.routes.normal.normal_rows", fail)
    named = {"x-request-id": "job-8"}
    answer = await api.http.post(f"{PUMP}/normal", json=BATCH, headers=named)
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "job-8")
    (failed,) = [line for line in lines() if line["level"] == "error"]
    assert failed["request_id"] == "job-8"
