"""The story of a pump: five things happen in two weeks, and a person says which two were normal.

`pytest tests/contract/test_pump_story.py -rP` prints the figures of docs/benchmarks.md.
"""

import asyncio
import sys
from datetime import datetime
from typing import Any

import pytest

from service.worker.worker import Worker
from tests.contract.pump_weeks import HEADER, MINUTES, ROWS_A_HALF_DAY, SPANS, Span, weeks
from tests.contract.running import Running
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
CSV = {"content-type": "text/csv"}
BY_HAND = {"min_vectors": None, "max_age_seconds": None}
FAULTS = [span for span in SPANS if span.kind != "mode"]
RAMP_ROWS = 20  # rows, of 120: the latest start of its incident


class Story:
    """Sends the pump's rows and decisions; times are in rows since the judged weeks began."""

    def __init__(self, pump: Running, began: datetime) -> None:
        self.http, self.flush = pump.http, pump.parts.reporter.flush
        self.began = began

    def row(self, at: str) -> float:
        """Return the row of the judged weeks that came at a time."""
        return (datetime.fromisoformat(at) - self.began).total_seconds() / (60 * MINUTES)

    async def retrained(self) -> dict[str, Any]:
        """Retrain on the buffered rows; return the outcome."""
        answer = await self.http.post(f"{PUMP}/retrain", json={"wait": PATIENCE})
        assert answer.status_code == 200, answer.text
        outcome: dict[str, Any] = answer.json()["last_retraining"]
        assert outcome["outcome"] == "promoted", outcome
        return outcome

    async def incidents(self, judged: str) -> list[dict[str, Any]]:
        """Score a CSV, half a day at a time; return the resulting incidents in order."""
        before = {incident["id"] for incident in await self._listed()}
        rows, counted = judged.splitlines()[1:], await self._counted()
        for first in range(0, len(rows), ROWS_A_HALF_DAY):
            body = "\n".join([HEADER, *rows[first : first + ROWS_A_HALF_DAY]])
            answer = await self.http.post(f"{PUMP}/score?time=when", content=body, headers=CSV)
            assert answer.status_code == 200, answer.text
            await self.flush()

        async def rows_are_counted() -> bool:
            await asyncio.sleep(0.1)
            return await self._counted() == counted + len(rows)

        await until(rows_are_counted)
        new = [incident for incident in await self._listed() if incident["id"] not in before]
        return sorted(new, key=lambda incident: str(incident["start"]))

    def found(self, incidents: list[dict[str, Any]], span: Span) -> list[dict[str, Any]]:
        """Return the incidents with rows of a span.

        An alarm just before the span may begin the incident: the threshold lets some normals alarm.
        """
        return [
            incident
            for incident in incidents
            if self.row(incident["start"]) < span.last and self.row(incident["end"]) >= span.first
        ]

    async def _listed(self) -> list[dict[str, Any]]:
        answer = (await self.http.get(f"{PUMP}/incidents")).json()
        return list(answer["incidents"])

    async def _counted(self) -> int:
        span = {"from": self.began.timestamp() - 3600, "to": self.began.timestamp() + 30 * 86_400}
        buckets = (await self.http.get(f"{PUMP}/history", params=span)).json()["buckets"]
        return sum(bucket["rows"] for bucket in buckets)


@pytest.mark.parametrize("kind", [pytest.param("vae", marks=pytest.mark.thorough), "mahalanobis"])
async def test_four_weeks_of_a_pump_make_five_incidents(
    api: Running, worker: Worker, kind: str
) -> None:
    """There are five incidents; the two dismissed ones do not return, faults are still found."""
    learned, judged, began = weeks()
    story = Story(api, began)
    names = HEADER.split(",")[1:]
    await api.make(kind=kind, features=names, incident={"false_per_day": 0.1}, retrain=BY_HAND)
    answer = await api.http.post(f"{PUMP}/normal?time=when", content=learned, headers=CSV)
    assert answer.status_code == 202, answer.text
    await story.retrained()
    await api.serving(1)

    incidents = await story.incidents(judged)
    listed = [(round(story.row(incident["start"])), incident["sentence"]) for incident in incidents]
    assert len(incidents) == len(SPANS), listed
    for incident, span in zip(incidents, SPANS, strict=True):
        late = story.row(incident["start"]) - span.first
        sys.stdout.write(f"{kind}: {span.kind} dated {late:.0f} rows after its start\n")
        # Of a stuck pressure the first rows are right by chance.
        latest = {"ramp": RAMP_ROWS, "stuck": 5}.get(span.kind, 2)
        assert -0.5 <= late <= latest + 0.5, (span, listed)

    for incident, span in zip(incidents, SPANS, strict=True):
        if span.kind == "mode":
            body = {"decision": "dismiss", "why": "the cleaning programme"}
            decided = await api.http.post(f"{PUMP}/incidents/{incident['id']}", json=body)
            assert "labelled normal" in decided.json()["effect"]
    outcome = await story.retrained()
    labelled = (await api.http.get(f"{PUMP}/labels?limit=1000")).json()["labels"]
    assert outcome["labelled"].startswith(f"of {len(labelled)} rows labelled normal, ")
    await api.serving(2)

    again = await story.incidents(judged)
    listed = [(round(story.row(incident["start"])), incident["sentence"]) for incident in again]
    assert all(story.found(again, span) for span in FAULTS), listed
    assert len(again) == sum(len(story.found(again, span)) for span in FAULTS), listed

    moved = (await api.http.put(f"{PUMP}/champion", json={"version": 1})).json()
    assert moved["labels"] == {
        "normal": len(labelled), "anomaly": 0, "unlearned": len(labelled), "spared": 2,
    }  # fmt: skip
    assert "Rows like those of 2 dismissals still page nobody." in moved["effect"]
