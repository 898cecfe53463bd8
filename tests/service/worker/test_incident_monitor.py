"""From reports of several processes to incidents and history, on a real store."""

import time
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from models import Config, Model, Version, train
from models.parts.incident_calibration import LADDER
from models.parts.lineage import FalseIncidents
from service.domain import history
from service.domain.attribution import Attribution
from service.domain.event import Event
from service.domain.history import bucket_of
from service.domain.incident import DismissedPattern, IncidentDecision, KeptRow
from service.domain.incident_fold import Block
from service.domain.traffic import BucketCounts, Report, place_of
from service.reread import Reread
from service.settings import Settings
from service.store import clock
from service.store.incidents import Incidents
from service.store.messages import Messages
from service.store.redis_keys import Keys
from service.store.traffic import TrafficStore
from service.worker import incident_monitor, webhook
from service.worker.webhook import Receiver, Webhook
from tests.service.stored import Stored, monitor_over

pytestmark = pytest.mark.anyio
SETTINGS = Settings(lease_seconds=5.0, webhook_url="http://127.0.0.1:9/")


@pytest.fixture(scope="module")
def version() -> Version:
    """Return a version that learned three independent standard normal features."""
    X = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    return train(None, X, Config(features=("a", "b", "c"), model=Model(epochs=5)))


class Traffic:
    """API processes that report rows of the detector `pump`."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.store = TrafficStore(stored.redis)
        self.incidents = Incidents(stored.redis)
        self.numbers: dict[str, int] = {}

    async def send(
        self, verdicts: str, ago: float = 0.0, process: str = "p1", source: str = ""
    ) -> None:
        """Report rows a second apart, the last one `ago` seconds ago; `x` is an alarm."""
        number = self.numbers[process] = self.numbers.get(process, 0) + 1
        end, n = time.time() - ago, len(verdicts)
        places = tuple(i for i, verdict in enumerate(verdicts) if verdict == "x")
        times = tuple(end - n + 1 + i for i in places)
        severities = np.where(np.isin(np.arange(n), places), 1.5, 0.2)
        bucket = bucket_of(severities, len(places), 1)
        leading = (Attribution("a", 5.0, 7.0, 0.0),)
        kept_row = KeptRow("", end, 1.5, 1e-3, 20.0, b"", leading)
        kept_rows = tuple((i, kept_row) for i in places)
        block = Block(source, n, end, places, times, (1.5,) * len(places), kept_rows)
        uid = (await self.stored.get()).uid
        report = Report(uid, 1, 1, (BucketCounts.of(*place_of(end, end), bucket),), (block,))
        events = [Event(end, np.full(3, 7.0, np.float32), 20.0, 1e-3, 1.5, 1, 1)] * len(places)
        assert await self.store.send("pump", process, number, report, events)

    async def open_incidents(self) -> list[Any]:
        """Return the open incidents."""
        return [
            stored for stored in await self.incidents.all("pump") if stored.incident.state == "open"
        ]

    async def rows_by_bucket(self) -> dict[int, tuple[int, int]]:
        """Return the numbers of rows and of alarms so far, by the seconds of a bucket."""
        totals = {history.MINUTE: (0, 0), history.HOUR: (0, 0)}
        for chunk, buckets in (await self.incidents.buckets("pump")).items():
            step = history.step_of(chunk)
            rows, alarms = totals[step]
            rows += sum(bucket.rows for bucket in buckets.values())
            totals[step] = (rows, alarms + sum(bucket.alarms for bucket in buckets.values()))
        return totals


@pytest.fixture
async def traffic(stored: Stored, version: Version) -> Traffic:
    """Make `version` version 1 of the detector `pump`."""
    await stored.learn(artifact=version.to_bytes())
    return Traffic(stored)


async def test_alarms_of_two_processes_are_one_incident(traffic: Traffic) -> None:
    """Alarming rows of two processes are one incident, with rows, status and messages."""
    monitor = monitor_over(traffic.stored.redis, SETTINGS)
    await traffic.send("..x")
    await traffic.send("xx", process="p2")
    await monitor.tick()
    ((incident, decision),) = await traffic.open_incidents()
    fields = (incident.count, incident.state, incident.features, decision)
    assert fields == (3, "open", ("a",), None)
    assert incident.regime == 1  # the version knows only one regime, so it is the nearest
    rows = (await traffic.incidents.rows("pump", [incident.id]))[incident.id]
    assert [np.frombuffer(row.vector, "<f4").tolist() for row in rows] == [[7.0] * 3] * 3
    detector = await traffic.stored.get()
    assert (detector.incidents.open, detector.incidents.opened) == (1, 1)
    assert detector.incident_rule is not None
    assert detector.incident_rule.calibration == "insufficient"
    (waiting,) = await Messages(traffic.stored.redis).waiting("pump", 10)
    assert waiting.message.incident == incident.id
    assert await traffic.rows_by_bucket() == {history.MINUTE: (5, 3), history.HOUR: (5, 3)}


async def test_a_worker_with_a_wrong_clock_pages(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of this moment page, also if the worker's machine is two days ahead of the store."""
    ahead = SimpleNamespace(time=lambda: time.time() + 2 * 86_400, monotonic=time.monotonic)
    for module in (incident_monitor, clock, webhook):
        monkeypatch.setattr(module, "time", ahead)
    monitor = monitor_over(traffic.stored.redis, SETTINGS)
    await traffic.send("..xxx")
    await monitor.tick()
    ((incident, _),) = await traffic.open_incidents()
    assert incident.pages
    taken = []
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: taken.append(request) or httpx.Response(200))
    )
    receiver = Receiver("http://pager/", Reread("secrets", tuple), 60, 3600.0)
    redis = traffic.stored.redis
    sender = Webhook(receiver, redis, clock.StoreClock(redis), monitor.leases, client)
    await sender.tick()
    await sender.close()
    assert len(taken) == 1


async def test_a_dead_worker_s_reports_are_counted_once(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a worker dies before it saves, the next one counts the same reports once."""
    monitor = monitor_over(traffic.stored.redis, Settings(lease_seconds=0.2))
    await traffic.send("...x....")
    monkeypatch.setattr(incident_monitor, "SAVE_SECONDS", 1e9)
    await monitor.tick()  # it has counted and not saved
    assert await traffic.rows_by_bucket() == {history.MINUTE: (0, 0), history.HOUR: (0, 0)}
    del monitor
    monkeypatch.setattr(incident_monitor, "SAVE_SECONDS", 0.0)
    await traffic.send("xx")
    await traffic.stored.redis.delete(Keys("pump").lease("monitor"))
    second = monitor_over(traffic.stored.redis, SETTINGS)
    await second.tick()
    assert (await traffic.rows_by_bucket())[history.MINUTE] == (10, 3)
    assert len(await traffic.open_incidents()) == 1
    assert await traffic.stored.redis.xlen(Keys("pump").traffic) <= 1  # what was counted is gone
    await second.close()
    third = monitor_over(traffic.stored.redis, SETTINGS)
    await traffic.send("x")
    await third.tick()
    await third.close()
    assert (await traffic.rows_by_bucket())[history.HOUR] == (11, 4)
    ((incident, _),) = await traffic.open_incidents()
    assert incident.count == 4


async def test_incidents_of_old_rows_are_counted_as_unreported(traffic: Traffic) -> None:
    """An incident of old rows pages nobody. It counts as unreported until newer rows alarm."""
    monitor = monitor_over(traffic.stored.redis, SETTINGS)
    await traffic.send("xxx", ago=7200.0)
    await monitor.tick()
    counts = (await traffic.stored.get()).incidents
    assert (counts.open, counts.unfinished, counts.unreported) == (0, 1, 1)
    await traffic.send("xxx")
    await monitor.tick()
    counts = (await traffic.stored.get()).incidents
    assert (counts.open, counts.unreported) == (1, 0)


async def test_decisions_reach_the_worker(traffic: Traffic) -> None:
    """Neither an incident that a person decided nor rows like dismissed ones page anybody."""
    monitor = monitor_over(traffic.stored.redis, SETTINGS)
    await traffic.send("xxx", source="m1")
    await monitor.tick()
    ((incident, _),) = await traffic.open_incidents()
    decision = IncidentDecision("dismissed", "a wash", "key:k", time.time())
    pattern = DismissedPattern(incident.id, {"a": (6.0, 8.0)})
    assert await traffic.incidents.decide("pump", incident.id, decision, pattern)
    await monitor.tick()
    assert (await traffic.stored.get()).incidents.open == 0
    await traffic.send("xxx", source="m2")
    await monitor.tick()
    first = (await traffic.open_incidents())[0].incident
    assert (first.source, first.pages, first.like) == ("m2", False, incident.id)
    counts = (await traffic.stored.get()).incidents
    assert (counts.open, counts.unreported) == (0, 0)
    confirmed = IncidentDecision("confirmed", "a fault", "key:k", time.time())
    withdrawn = IncidentDecision(None, "no wash", "key:k", time.time())
    assert await traffic.incidents.decide("pump", incident.id, withdrawn, None)
    await monitor.tick()
    assert (await traffic.stored.get()).incidents.open == 1
    assert await traffic.incidents.decide("pump", incident.id, confirmed, None)
    await monitor.tick()
    assert (await traffic.stored.get()).incidents.open == 0, "a person knows of it"
    assert not await traffic.incidents.decide("pump", "i99-0", withdrawn, None)


async def test_with_incidents_off_the_history_goes_on(traffic: Traffic) -> None:
    """With incidents turned off a detector has a history and no incidents."""
    await traffic.stored.make(incident=None)
    monitor = monitor_over(traffic.stored.redis, SETTINGS)
    await traffic.send("xxxxxx")
    await monitor.tick()
    await monitor.close()
    assert await traffic.incidents.all("pump") == []
    assert (await traffic.rows_by_bucket())[history.MINUTE] == (6, 6)


async def test_the_oldest_incidents_are_deleted(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the latest incidents are kept, and only the latest of these keep their rows."""
    monkeypatch.setattr("service.store.incidents.INCIDENTS_KEPT", 6)
    monkeypatch.setattr("service.store.incidents.INCIDENTS_WITH_ROWS", 2)
    monitor = monitor_over(traffic.stored.redis, SETTINGS)
    for i in range(8):
        await traffic.send("xxx", source=f"m{i}")
    await monitor.tick()
    incidents = [stored.incident for stored in await traffic.incidents.all("pump")]
    assert [incident.source for incident in incidents] == [f"m{i}" for i in range(7, 1, -1)]
    rows = await traffic.incidents.rows("pump", [incident.id for incident in incidents])
    assert [bool(kept) for kept in rows.values()] == [True, True, False, False, False, False]


async def test_a_calibrated_rule_states_its_rate(stored: Stored, version: Version) -> None:
    """With enough calibration rows and an hour of traffic the rule states its rate."""
    openings = tuple(max(0, 60 - 5 * i) for i in range(len(LADDER)))
    counts = FalseIncidents(rows=50_000, openings=openings, peaks=(1.2,) * 20, alpha=0.01)
    version = version.with_lineage(incidents=counts)
    await stored.learn(artifact=version.to_bytes())
    traffic = Traffic(stored)
    await traffic.send("." * 2000, ago=7000.0)
    await traffic.send("." * 2000)
    monitor = monitor_over(stored.redis, SETTINGS)
    await monitor.tick()
    await monitor.close()
    await traffic.send("." * 100)
    await monitor_over(stored.redis, SETTINGS).tick()
    rule = (await stored.get()).incident_rule
    assert rule is not None
    assert rule.calibration == "insufficient"
    assert (rule.counted_rows, rule.needed_rows) == (50_000, None)  # the traffic is unknown yet
    await stored.make(incident={"false_per_day": 40.0})
    third = monitor_over(stored.redis, SETTINGS)
    await stored.redis.delete(Keys("pump").lease("monitor"))
    await traffic.send("." * 100)
    await third.tick()
    await third.close()
    rule = (await stored.get()).incident_rule
    assert rule is not None
    assert rule.calibration == "exact"
    assert rule.held_per_day <= 40.0
    assert rule.needed_rows is not None
    assert 3_000 < rule.needed_rows < 5_000  # of 50,000 rows a day, to expect three openings of 40
    assert rule.held_low <= rule.held_per_day <= rule.held_high


async def test_rows_that_no_worker_read_are_known(traffic: Traffic) -> None:
    """Reports are unread until a worker has looked at them, also those that come later."""
    names = ["pump", "unknown"]
    assert await traffic.store.unread_since(names) == {}
    began = time.time()
    for _ in range(3):
        await traffic.send("..")
    unread = await traffic.store.unread_since(names)
    assert unread.keys() == {"pump"}
    assert unread["pump"] == pytest.approx(began, abs=60.0)
    monitor = monitor_over(traffic.stored.redis, SETTINGS)
    await monitor.tick()
    await monitor.close()
    assert await traffic.store.unread_since(names) == {}
    await traffic.send("..")
    assert (await traffic.store.unread_since(names)).keys() == {"pump"}
