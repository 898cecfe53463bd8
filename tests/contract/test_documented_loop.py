"""The live loop of docs/incidents.md runs unchanged against a running service, batch by batch."""

import asyncio
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from models import Config, train
from models.context import Context
from service.client import Client
from tests.contract.running import Running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs" / "incidents.md").read_text().partition("## The live loop")[2]
PLAIN, WITH_CONTEXT = (
    textwrap.dedent(code) for code in re.findall(r"\n\n((?:    .*\n|\n(?=    ))+)", SECTION)[:2]
)
OVER = 10  # rows of context
ODD = slice(30, 34)  # rows of a batch
RNG = np.random.default_rng(0)


def batch(start: float, n: int = 60) -> dict[str, object]:
    """Return n rows of two sources, a minute apart, of which those in ODD are anomalies."""
    rows = RNG.normal(size=(n, 3)).astype(np.float32)
    rows[ODD] += 30.0
    times = start + 60.0 * np.arange(n)
    return {"rows": rows, "times": times, "sources": ["a", "b"] * (n // 2), "start": start}


async def played(api: Running, code: str, repeated: str) -> list[dict[str, object]]:
    """Run `code` and, for a second batch, its part `repeated`; return the answers of `/score`."""

    def play() -> list[dict[str, object]]:
        with Client(str(api.http.base_url)) as client:
            names: dict[str, object] = {"client": client, "np": np}
            answers = []
            for begun, text in ((1.7e9, code), (1.7e9 + 3600.0, repeated)):
                names |= batch(begun)
                exec(compile(text, "docs/incidents.md", "exec"), names)
                answers.append(names["answer"])
            return answers

    return await asyncio.to_thread(play)


async def buffered(api: Running) -> int:
    """Return how many rows wait to be learned; fail if any is held back."""
    status = (await api.http.get("/v1/detectors/pump-7")).json()
    assert status["quarantined"] == 0, "the loop sends nothing that has to be held back"
    return int(status["buffered"])


async def test_the_loop_without_a_context(api: Running, versions: Versions) -> None:
    """Rows that do not alarm are learned, and no other rows."""
    await api.make("pump-7")
    await api.serve(versions[0], "pump-7")
    answers = await played(api, PLAIN, PLAIN)
    verdicts = np.array([answer["is_anomaly"] for answer in answers])
    assert verdicts[:, ODD].all()
    assert await buffered(api) == (~verdicts).sum() > 100


@pytest.fixture
async def with_context(api: Running) -> Running:
    """Serve a detector with a context."""
    config = Config(kind="mahalanobis", context=Context(over=OVER))
    await api.make("pump-7", kind="mahalanobis", context={"over": OVER})
    await api.serve(train(None, RNG.normal(size=(400, 6)), config), "pump-7")
    return api


async def test_a_batch_without_context_is_no_error(with_context: Running) -> None:
    """If all rows of a batch are warming, none is learned; a stream may begin with few rows."""
    body = {"vectors": [[0.0, 0.0, 0.0]] * 3}
    answer = await with_context.http.post("/v1/detectors/pump-7/normal", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["not_learned"] == {"warming": 3}
    assert answer.json()["accepted"] == 0


async def test_the_loop_with_a_context(with_context: Running) -> None:
    """The streams keep the context of each source, so only the first batch has warming rows."""
    api = with_context
    begin, repeated = WITH_CONTEXT.partition("answer = ")[::2]
    answers = await played(api, WITH_CONTEXT, "answer = " + repeated)
    assert "Stream(" in begin
    first, second = (answer["states"] for answer in answers)
    assert (first.count("warming"), second.count("warming")) == (2 * OVER, 0)
    verdicts = [verdict for answer in answers for verdict in answer["is_anomaly"]]
    assert all(answer["is_anomaly"][row] for answer in answers for row in range(30, 34))
    no_alarms = verdicts.count(False)
    assert await buffered(api) == no_alarms - 2 * OVER, "the learning stream begins without context"
