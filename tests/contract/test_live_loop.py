"""The live loop on two weeks of a pump: what it learns of faults and of a new healthy mode.

`pytest tests/contract/test_live_loop.py -rP` prints the figures of docs/benchmarks.md.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from service.worker.worker import Worker
from tests.contract.pump_weeks import HEADER, SPANS, Span, weeks
from tests.contract.running import Running
from tests.waiting import until

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
BATCH = 48  # rows: eight hours
BY_HAND = {"min_vectors": None, "max_age_seconds": None}
FAULTS = tuple(span for span in SPANS if span.kind != "mode")
MODES = tuple(span for span in SPANS if span.kind == "mode")
KINDS = [pytest.param("vae", marks=pytest.mark.thorough), "mahalanobis"]


def within(spans: tuple[Span, ...], n: int) -> np.ndarray:
    """Return which of n rows lie in one of the spans, (n,)."""
    rows = np.arange(n)
    return np.any([(span.first <= rows) & (rows < span.last) for span in spans], axis=0)


class Loop:
    """A client that scores a pump's rows and sends them as normal; its results by row, (n,)."""

    def __init__(self, api: Running, judged: str) -> None:
        self.api, self.http = api, api.http
        self.rows = np.array(judged.splitlines()[1:])
        self.fault, self.mode = (within(spans, len(self.rows)) for spans in (FAULTS, MODES))
        self.alarmed = np.zeros(len(self.rows), bool)
        self.accepted = np.zeros(len(self.rows), bool)
        self.held = 0

    async def post(self, path: str, rows: Any) -> dict[str, Any]:
        """Send rows as CSV; return the answer."""
        answer = await self.http.post(
            f"{PUMP}/{path}{'&' if '?' in path else '?'}time=when",
            content="\n".join([HEADER, *rows]),
            headers={"content-type": "text/csv"},
        )
        assert answer.status_code in {200, 202}, answer.text
        return dict(answer.json())

    async def status(self) -> dict[str, Any]:
        return dict((await self.http.get(PUMP)).json())

    async def alarms(self) -> np.ndarray:
        """Return which rows alarm now, (n,), without recording them."""
        return np.array((await self.post("score?record=false", self.rows))["is_anomaly"])

    async def play_loop(self) -> None:
        """Score a batch; send the rows that did not alarm as normal."""
        for batch in np.split(np.arange(len(self.rows)), len(self.rows) // BATCH):
            await self.score(batch)
            await self.send(batch[~self.alarmed[batch]])

    async def play_wrong_loop(self) -> None:
        """Score a row and send it as normal even if it alarmed; send known healthy rows in batches.

        A row is sent at once, when only this process knows that it alarmed.
        """
        odd = self.fault | self.mode
        for part in np.split(np.arange(len(odd)), np.flatnonzero(np.diff(odd)) + 1):
            size = 1 if odd[part[0]] else BATCH
            for batch in np.split(part, range(size, len(part), size)):
                await self.score(batch, flush=size > 1)
                await self.send(batch)

    async def score(self, batch: np.ndarray, *, flush: bool = True) -> None:
        self.alarmed[batch] = (await self.post("score", self.rows[batch]))["is_anomaly"]
        if flush:
            await self.api.parts.reporter.flush()

    async def send(self, batch: np.ndarray) -> None:
        """Send rows as normal; record which were accepted."""
        if not len(batch):
            return
        body = await self.post("normal", self.rows[batch])
        held_back = body["quarantined"]
        assert body["accepted"] + held_back == len(batch), body
        assert ("`vouch`" in body.get("why", "")) == bool(held_back and self.alarmed[batch].any())
        self.held += held_back
        if len(batch) == 1 or not held_back:
            self.accepted[batch] = not held_back

    async def retrained(self) -> None:
        """Retrain on the buffered rows, and serve the new version."""
        before = (await self.status())["last_retraining"]
        answer = await self.http.post(f"{PUMP}/retrain")
        assert answer.status_code == 202, answer.text

        async def retraining_is_over() -> bool:
            await asyncio.sleep(0.1)
            self.outcome = (await self.status()).get("last_retraining", before)  # 503: a busy store
            return bool(self.outcome != before)

        await until(retraining_is_over)
        assert self.outcome["outcome"] == "promoted", self.outcome
        await self.api.serving(self.outcome["version"])

    async def dismiss_modes(self) -> None:
        """Dismiss the incidents of the cleaning programme once the worker has seen all rows."""
        whens = [row.partition(",")[0].removesuffix("Z") for row in self.rows]
        began = datetime.fromisoformat(whens[0]).replace(tzinfo=UTC).timestamp()
        time_range = {"from": began - 3600, "to": began + 30 * 86_400}

        async def rows_are_counted() -> bool:
            await asyncio.sleep(0.1)
            buckets = (await self.http.get(f"{PUMP}/history", params=time_range)).json()["buckets"]
            return sum(bucket["rows"] for bucket in buckets) == len(self.rows)

        await self.api.parts.reporter.flush()
        await until(rows_are_counted)
        listed = (await self.http.get(f"{PUMP}/incidents")).json()["incidents"]
        modes = [
            incident
            for incident in listed
            if any(whens[span.first] <= incident["start"] < whens[span.last] for span in MODES)
        ]
        assert len(modes) == len(MODES), [incident["sentence"] for incident in listed]
        for incident in modes:
            decision = {"decision": "dismiss", "why": "the cleaning programme"}
            answer = await self.http.post(f"{PUMP}/incidents/{incident['id']}", json=decision)
            assert "kept rows are labelled normal" in answer.json()["effect"], answer.text


@pytest.fixture(params=KINDS)
async def loop(api: Running, worker: Worker, request: pytest.FixtureRequest) -> Loop:
    """Learn two healthy weeks."""
    learned, judged, _ = weeks()
    names = HEADER.split(",")[1:]
    await api.make(
        kind=request.param, features=names, incident={"false_per_day": 0.1}, retrain=BY_HAND
    )
    loop = Loop(api, judged)
    await loop.post("normal", learned.splitlines()[1:])
    await loop.retrained()
    return loop


def alarms_by_span(loop: Loop, *alarms: np.ndarray) -> str:
    """Return how many rows of each span alarm under each version, and the share of the others."""
    spans = [
        f"{span.kind} of {span.last - span.first}: "
        + " ".join(str(int(alarm[span.first : span.last].sum())) for alarm in alarms)
        for span in SPANS
    ]
    other = ~(loop.fault | loop.mode)
    return "; ".join(
        [*spans, "healthy rows: " + " ".join(f"{alarm[other].mean():.2%}" for alarm in alarms)]
    )


@pytest.mark.parametrize(
    "way", ["the live loop", pytest.param("all rows", marks=pytest.mark.thorough)]
)
async def test_only_dismissed_alarms_are_learned(loop: Loop, way: str) -> None:
    """No row that alarmed is learned, faults are still found, the dismissed mode is learned."""
    before = await loop.alarms()
    await (loop.play_loop() if way == "the live loop" else loop.play_wrong_loop())
    assert not (loop.accepted & loop.alarmed).any()
    status = await loop.status()
    assert status["quarantined"] == loop.held
    if way == "the live loop":
        assert loop.held == 0, "the loop sends nothing that has to be held back"
    else:
        assert loop.held >= (loop.alarmed & (loop.fault | loop.mode)).sum() > 0
        assert status["waiting"] == f"{loop.held} rows wait for a person"
    await loop.retrained()
    after = await loop.alarms()
    await loop.dismiss_modes()
    left = (await loop.status())["quarantined"]
    await loop.retrained()
    last = await loop.alarms()
    sys.stdout.write(
        f"{way}: {loop.held} rows held, {left} after the dismissals; faulty rows taken: "
        f"{(loop.accepted & loop.fault).sum()} of {loop.fault.sum()}; "
        f"{alarms_by_span(loop, before, after, last)}\n"
    )
    found = [int(alarms[loop.fault].sum()) for alarms in (before, after, last)]
    assert min(found) >= 0.95 * found[0], found
    assert after[loop.mode].all(), "nobody said yet that the programme is healthy"
    assert last[loop.mode].mean() <= 0.15
    if way == "all rows":
        assert left >= (loop.alarmed & loop.fault).sum(), "a fault is not what was dismissed"


@pytest.mark.thorough
async def test_rows_sent_with_vouch_are_learned_without_a_decision(loop: Loop) -> None:
    """Rows sent with `vouch` need no decision: the next version has learned them."""
    before = await loop.alarms()
    assert before[loop.mode].all()
    await loop.post("normal?vouch=true", loop.rows[loop.mode])
    await loop.retrained()
    after = await loop.alarms()
    sys.stdout.write(f"vouched: {alarms_by_span(loop, before, after)}\n")
    assert after[loop.mode].mean() <= 0.05
    assert after[loop.fault].sum() >= 0.95 * before[loop.fault].sum()
