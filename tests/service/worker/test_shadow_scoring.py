"""The shadow stage: a candidate judges live traffic before it serves."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from models.decisions.gate import gate
from models.decisions.shadow_result import ShadowResult
from models.parts.lineage import NO_EVIDENCE
from service.store.live_summaries import LiveSummaries
from service.worker import shadow_scoring
from tests.service.stored import Stored, matrix
from tests.service.trained import versions

pytestmark = pytest.mark.anyio


async def _detector(stored: Stored, vectors: int, seconds: float = 60):
    await stored.make(dimension=3, retrain={"shadow": {"vectors": vectors, "seconds": seconds}})
    return await stored.get()


async def test_with_enough_vectors_the_stage_does_not_wait(stored: Stored):
    """If enough vectors are there, the stage does not wait."""
    detector, live = await _detector(stored, 30), LiveSummaries(stored.redis)
    X = matrix(40)
    await live.add_to_sample("pump", detector.uid, X, 40)
    sampled = await asyncio.wait_for(shadow_scoring.sample(live, detector), 5)
    assert (sampled == X[10:]).all()


async def test_the_stage_waits_for_missing_vectors(stored: Stored, monkeypatch):
    """The stage ends as soon as enough vectors came."""
    monkeypatch.setattr(shadow_scoring, "_LOOK_SECONDS", 0.01)
    detector, live = await _detector(stored, 30, 3600), LiveSummaries(stored.redis)
    await live.add_to_sample("pump", detector.uid, matrix(20), 30)
    waiting = asyncio.create_task(shadow_scoring.sample(live, detector))
    await live.add_to_sample("pump", detector.uid, matrix(20, seed=1), 30)
    assert len(await asyncio.wait_for(waiting, 5)) == 30


async def test_after_its_time_the_stage_takes_the_vectors_that_came(stored: Stored):
    """After the time the evidence has the vectors that came; too few do not decide."""
    detector, live = await _detector(stored, 100, 0), LiveSummaries(stored.redis)
    first, second = versions()
    nothing = await shadow_scoring.sample(live, detector)
    assert shadow_scoring.compare(second, first, detector, None, nothing) == ShadowResult(
        asked=100, n=0
    )
    await live.add_to_sample("pump", detector.uid, matrix(90) + 50, 100)
    some = await shadow_scoring.sample(live, detector)
    evidence = shadow_scoring.compare(first, first, detector, None, some)
    assert (evidence.asked, evidence.n) == (100, 90)
    worse = replace(evidence, candidate=1.0, champion=0.0)
    assert gate(NO_EVIDENCE, shadow=worse).passed


async def test_without_the_store_there_is_no_sample(own_store, stored: Stored):
    """If the store is away, the candidate is decided on without a sample after the time."""
    from service.store.connection import connect

    detector = await _detector(stored, 30, 0)
    redis = await connect(own_store.url)
    own_store.kill()
    assert (await shadow_scoring.sample(LiveSummaries(redis), detector)).shape == (0, 3)
    await redis.aclose()


async def test_rows_of_disagreement_are_recorded(stored: Stored):
    """Rows on which only one of the two alarms are recorded, bounded, the largest gap first."""
    detector = await _detector(stored, 100)
    first, second = versions()  # the second version also learned what lies one higher
    X = np.concatenate([matrix(60), matrix(40, seed=1) * np.float32(2)])
    evidence = shadow_scoring.compare(second, first, detector, None, X)
    alarms = {"candidate": second.is_anomaly(X), "champion": first.is_anomaly(X)}
    apart = (alarms["candidate"] != alarms["champion"]).sum()
    assert apart > 0
    assert evidence.disagree == apart
    assert evidence.champion == alarms["champion"].mean()
    assert 0 < len(evidence.rows) <= shadow_scoring.ROWS
    for row in evidence.rows:
        (at,) = np.flatnonzero((np.float32(row.vector) == X).all(axis=1))
        assert row.candidate.is_anomaly == alarms["candidate"][at]
        assert row.candidate.is_anomaly != row.champion.is_anomaly
    gaps = [
        abs(second.judge(V).severities[0] - first.judge(V).severities[0])
        for V in (np.float32([row.vector]) for row in evidence.rows)
    ]
    assert gaps == sorted(gaps, reverse=True)
