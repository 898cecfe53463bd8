"""Incidents, history and decisions of people, over HTTP."""

import asyncio
import html
import re
import threading
import time
from typing import Any

import numpy as np
import pytest

from service.settings import Settings
from service.store.connection import connect
from service.store.redis_keys import Keys
from service.worker.drift_monitor import Monitor
from tests.contract.running import Running
from tests.service.stored import monitor_over
from tests.service.trained import Versions
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.anyio
PUMP = "/v1/detectors/pump"
ODD = [70.0, 70.0, 70.0]


@pytest.fixture
async def monitor(pump: Running, store_url: str) -> Any:
    """Follow the running service, as a worker does."""
    async with await connect(store_url, deadline=20.0) as redis:
        made = monitor_over(redis, Settings(lease_seconds=30.0))
        yield made
        await made.close()


async def score(
    pump: Running, monitor: Monitor, rows: list[list[float]], **more: list[str]
) -> None:
    """Score rows and let the worker see them."""
    answer = await pump.http.post(f"{PUMP}/score", json={"vectors": rows, **more})
    assert answer.status_code == 200
    await pump.parts.reporter.flush()
    await monitor.tick()


async def incidents(pump: Running, **query: Any) -> list[dict[str, Any]]:
    """Return the listed incidents."""
    answer = await pump.http.get(f"{PUMP}/incidents", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["incidents"]


async def test_an_incident_from_scoring_to_its_rows(pump: Running, monitor: Monitor) -> None:
    """Alarming rows are one incident: listed with a sentence, shown with rows, in the history."""
    assert await incidents(pump) == []
    await score(pump, monitor, [[0.0] * 3] * 20 + [ODD] * 4)
    (incident,) = await incidents(pump, state="open")
    assert (incident["state"], incident["verdict"], incident["count"]) == ("open", None, 4)
    assert (incident["version"], incident["generation"], incident["source"]) == (1, 1, None)
    assert incident["sentence"].endswith("4 rows")
    assert incident["features"][0].keys() == {"feature", "contribution", "value", "expected"}
    assert await incidents(pump, state="closed") == []
    stored = (await pump.http.get(f"{PUMP}/incidents/{incident['id']}")).json()
    assert [row["vector"] for row in stored["rows"]] == [ODD] * 4
    events = (await pump.http.get(f"{PUMP}/events", params={"incident": incident["id"]})).json()
    assert {event["id"] for event in events["events"]} == {row["event"] for row in stored["rows"]}
    event = events["events"][0]
    assert (await pump.http.get(f"{PUMP}/events/{event['id']}")).json() == event
    assert (await pump.http.get(f"{PUMP}/events/0-1")).status_code == 404
    status = (await pump.http.get(PUMP)).json()
    assert status["incidents"] == {"open": 1, "unfinished": 1}
    assert status["incident_calibration"] == "insufficient"
    page = (await pump.http.get("/detectors/pump")).text
    assert "3 alarming rows of 10 open one" in page
    assert "The rate of false incidents is not known" in page
    assert "on normals that trainings left out, and first needs an hour of traffic" in page


async def test_the_history_counts_rows_and_alarms_in_bounded_buckets(
    pump: Running, monitor: Monitor
) -> None:
    """The history counts scored rows and alarms, in a bounded number of non-empty buckets."""
    await score(pump, monitor, [[0.0] * 3] * 20 + [ODD] * 4)
    answer = await pump.http.get(f"{PUMP}/history")
    buckets = answer.json()["buckets"]
    assert sum(bucket["rows"] for bucket in buckets) == 24
    assert sum(bucket["alarms"] for bucket in buckets) == 4
    assert buckets[-1]["generation"] == 1
    assert buckets[-1]["severity_max"] > 1 > buckets[-1]["severity_p50"] > 0
    yesterday = time.time() - 86_400
    early = {"from": yesterday - 3600, "to": yesterday}
    assert (await pump.http.get(f"{PUMP}/history", params=early)).json() == {"buckets": []}


async def test_the_page_links_to_the_time_of_rows_of_last_week(
    pump: Running, monitor: Monitor
) -> None:
    """After last week's file was scored, the page links to the time of its rows."""
    last_week = [time.time() - 7 * 86_400 + i for i in range(24)]
    old_rows = {"vectors": [[0.0] * 3] * 20 + [ODD] * 4, "timestamps": last_week}
    assert (await pump.http.post(f"{PUMP}/score", json=old_rows)).status_code == 200
    await pump.parts.reporter.flush()
    await monitor.tick()
    page = (await pump.http.get("/detectors/pump")).text
    (link,) = re.findall(
        r'No row was scored in this time range. The latest .* href="([^"]+)"', page
    )
    there = (await pump.http.get(html.unescape(link))).text
    assert "No row was scored" not in there
    assert "Severity over time" in there


@pytest.mark.parametrize("days", [7, 400])
async def test_the_page_leads_to_incidents_of_old_rows(
    pump: Running, monitor: Monitor, days: int
) -> None:
    """After an old file was scored, the page of today leads to its incidents, with their year.

    The same holds if newer rows were scored too. An incident's page leads back to the incident's
    time.
    """
    at = time.time() - days * 86_400
    times = [at + i + 1000 * (i >= 24) for i in range(64)]
    vectors = [[0.0] * 3] * 20 + [ODD] * 4 + [[0.0] * 3] * 40
    for body in ({"vectors": vectors, "timestamps": times}, {"vectors": [[0.0] * 3]}):
        assert (await pump.http.post(f"{PUMP}/score", json=body)).status_code == 200
    await pump.parts.reporter.flush()
    await monitor.tick()
    page = (await pump.http.get("/detectors/pump")).text
    (when, link) = re.findall(r'Earlier incidents: 1, (.*) UTC. <a href="([^"]+)"', page)[0]
    year = str(time.gmtime(at).tm_year)
    assert (year in when) == (year != str(time.gmtime().tm_year))
    there = (await pump.http.get(html.unescape(link))).text
    assert "Earlier incidents" not in there
    assert ("Severity over time" in there) == (days < 90)
    assert ("The history keeps 90 days" in there) == (days > 90)
    (incident,) = re.findall(r'href="(/detectors/pump/incidents/[^"]+)"', there)
    back = re.findall(r'href="(/detectors/pump[?][^"]+)"', (await pump.http.get(incident)).text)
    assert incident in (await pump.http.get(html.unescape(back[0]))).text


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("history", {"points": 0}),
        ("history", {"points": 1501}),
        ("history", {"from": "yesterday"}),
        ("history", {"from": "2026-11-28T10:00:00Z", "to": "2026-11-28T10:00:00Z"}),
        ("incidents", {"state": "shut"}),
        ("incidents", {"limit": 1001}),
        ("incidents", {"after": "i9-9"}),
        ("events", {"after": "1-1"}),
        ("labels", {"after": "1-1"}),
        ("generations", {"after": "x"}),
    ],
)
async def test_invalid_queries_are_refused_with_what_is_allowed(
    pump: Running, path: str, query: dict[str, Any]
) -> None:
    """A query that means nothing is 422, and the error says what is allowed."""
    answer = await pump.http.get(f"{PUMP}/{path}", params=query)
    assert answer.status_code == 422
    assert "`" in answer.json()["detail"]


async def test_next_leads_through_every_item_once(pump: Running, monitor: Monitor) -> None:
    """`next` leads through a list to its end, and every item comes once."""
    for path, key in (("events", "events"), ("generations", "generations")):
        answer = (await pump.http.get(f"{PUMP}/{path}")).json()
        assert "next" not in answer, path
        assert key in answer
    await score(pump, monitor, [ODD] * 7)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        answer = (await pump.http.get(f"{PUMP}/events", params=query)).json()
        seen += [event["id"] for event in answer["events"]]
        if "next" not in answer:
            break
        query["after"] = answer["next"]
    assert len(seen) == len(set(seen)) == 7


async def test_decisions_label_rows_and_can_be_withdrawn(pump: Running, monitor: Monitor) -> None:
    """A decision labels the rows, says what follows from it, and can be withdrawn."""
    await score(pump, monitor, [ODD] * 4)
    (incident,) = await incidents(pump)
    path = f"{PUMP}/incidents/{incident['id']}"
    answer = await pump.http.post(path, json={"decision": "dismiss", "why": "a wash"})
    assert answer.status_code == 200
    decided = answer.json()
    assert (decided["verdict"], decided["why"]) == ("dismissed", "a wash")
    assert decided["effect"].startswith("4 kept rows are labelled normal")
    status = (await pump.http.get(PUMP)).json()
    assert status["buffered"] == 4
    labels = (await pump.http.get(f"{PUMP}/labels")).json()["labels"]
    assert {(label["label"], label["incident"]) for label in labels} == {("normal", incident["id"])}
    again = await pump.http.post(path, json={"decision": "dismiss"})
    assert again.json()["effect"] == decided["effect"]
    assert (await pump.http.get(PUMP)).json()["buffered"] == 4

    answer = await pump.http.post(path, json={"decision": "confirm"})
    assert answer.json()["verdict"] == "confirmed"
    assert "never learned" in answer.json()["effect"]
    assert (await pump.http.get(PUMP)).json()["buffered"] == 0  # taken back before it was learned
    labels = (await pump.http.get(f"{PUMP}/labels")).json()["labels"]
    assert {label["label"] for label in labels} == {"anomaly"}

    answer = await pump.http.post(path, json={"decision": "withdraw"})
    assert answer.json()["verdict"] is None
    assert (await pump.http.get(f"{PUMP}/labels")).json()["labels"] == []
    unknown = await pump.http.post(f"{PUMP}/incidents/i99-1", json={"decision": "dismiss"})
    assert unknown.status_code == 404
    for body in ({}, {"decision": "maybe"}, {"decision": "dismiss", "who": "me"}):
        assert (await pump.http.post(path, json=body)).status_code == 422


async def test_a_withdrawal_deletes_parked_rows_that_no_champion_learned(
    pump: Running, monitor: Monitor, versions: Versions
) -> None:
    """If the gate rejected the retraining, a withdrawal deletes the rows that wait parked."""
    await score(pump, monitor, [ODD] * 4)
    (incident,) = await incidents(pump)
    path = f"{PUMP}/incidents/{incident['id']}"
    await pump.http.post(path, json={"decision": "dismiss"})
    await pump.learn(versions[1], good=False)
    before = (await pump.http.get(PUMP)).json()["parked"]
    answer = await pump.http.post(path, json={"decision": "withdraw"})
    assert answer.json()["effect"].endswith("its rows are not learned.")
    assert (await pump.http.get(PUMP)).json()["parked"] == before - 4


async def test_of_two_decisions_at_once_one_stands(pump: Running, monitor: Monitor) -> None:
    """The labels are those of the verdict that stands, whoever was first."""
    await score(pump, monitor, [ODD] * 4)
    (incident,) = await incidents(pump)
    path = f"{PUMP}/incidents/{incident['id']}"
    for _ in range(5):
        both = ({"decision": "dismiss"}, {"decision": "confirm"})
        answers = await asyncio.gather(*(pump.http.post(path, json=body) for body in both))
        assert {answer.status_code for answer in answers} == {200}
        (decided,) = await incidents(pump)
        stands = {"dismissed": "normal", "confirmed": "anomaly"}[decided["verdict"]]
        labels = (await pump.http.get(f"{PUMP}/labels")).json()["labels"]
        assert [label["label"] for label in labels] == [stands] * 4
        assert (await pump.http.get(PUMP)).json()["buffered"] == (4 if stands == "normal" else 0)
        await pump.http.post(path, json={"decision": "withdraw"})


async def test_a_decision_about_an_outdated_verdict_is_refused(
    pump: Running, monitor: Monitor
) -> None:
    """A person who saw no verdict cannot replace one that another person gave meanwhile."""
    await score(pump, monitor, [ODD] * 4)
    (incident,) = await incidents(pump)
    path = f"{PUMP}/incidents/{incident['id']}"
    await pump.http.post(path, json={"decision": "confirm", "why": "a leak", "seen": None})
    late = await pump.http.post(path, json={"decision": "dismiss", "seen": None})
    assert late.status_code == 409
    assert "confirmed this incident in the meantime (a leak)" in late.json()["detail"]
    (kept,) = await incidents(pump)
    assert kept["verdict"] == "confirmed"
    answer = await pump.http.post(path, json={"decision": "dismiss", "seen": "confirmed"})
    assert answer.json()["effect"].startswith("Until now the incident was confirmed.")
    refused = await pump.http.post(path, json={"decision": "confirm", "seen": "x"})
    assert refused.status_code == 422


async def test_rows_like_dismissed_ones_stop_paging(pump: Running, monitor: Monitor) -> None:
    """After a dismissal the same rows are marked and page nobody, until it is withdrawn."""
    await score(pump, monitor, [ODD] * 4)
    (incident,) = await incidents(pump)
    attention = (await pump.http.get("/v1/attention")).json()["items"]
    assert "incident" in {item["kind"] for item in attention}
    await pump.http.post(f"{PUMP}/incidents/{incident['id']}", json={"decision": "dismiss"})
    await monitor.tick()

    async def no_incident_needs_a_person() -> bool:
        items = (await pump.http.get("/v1/attention")).json()["items"]
        return "incident" not in {item["kind"] for item in items}

    await until(no_incident_needs_a_person)
    assert (await pump.http.get(PUMP)).json()["incidents"]["open"] == 0


async def test_a_muted_detector_scores_and_pages_nobody(pump: Running, monitor: Monitor) -> None:
    """While muted a detector is scored and shown, pages nobody and has no trigger."""
    assert (await pump.http.post(f"{PUMP}/mute", json={"seconds": 0})).status_code == 422
    answer = await pump.http.post(f"{PUMP}/mute", json={"seconds": 600, "why": "service"})
    assert answer.json()["mute"]["why"] == "service"
    await score(pump, monitor, [ODD] * 4)
    (incident,) = await incidents(pump)
    assert incident["pages"] is False
    status = (await pump.http.get(PUMP)).json()
    assert (status["mute"]["why"], status["incidents"]["open"]) == ("service", 0)
    assert (await pump.http.delete(f"{PUMP}/mute")).status_code == 204
    assert (await pump.http.get(PUMP)).json()["mute"] is None
    assert (await pump.http.post("/v1/detectors/none/mute", json={"seconds": 1})).status_code == 404


async def test_a_dismissed_incident_ends_the_burst(pump: Running, monitor: Monitor) -> None:
    """A detector is `degraded` until a person dismisses the incident that caused the burst."""
    normals = np.random.default_rng(0).normal(size=(300, 3)).tolist()

    async def state() -> str:
        await monitor.tick()
        return (await pump.http.get(PUMP)).json()["drift"]["state"]

    await score(pump, monitor, normals)
    await score(pump, monitor, [ODD] * 22)
    await score(pump, monitor, normals[:30])
    assert await state() == "degraded"
    (incident,) = await incidents(pump)
    decided = {"decision": "dismiss", "why": "a wash"}
    answer = await pump.http.post(f"{PUMP}/incidents/{incident['id']}", json=decided)
    assert answer.status_code == 200
    await monitor.tick()
    assert await state() == "none"


async def test_damaged_incidents_do_not_hide_other_things_that_need_a_person(
    pump: Running, monitor: Monitor
) -> None:
    """Incidents that cannot be read are left out, and the rest is answered."""
    await score(pump, monitor, [ODD] * 4)
    await incidents(pump)
    redis, order = pump.parts.stores.redis, Keys("pump").incident_order
    await redis.delete(order)
    await redis.set(order, "not this type")
    answer = await pump.http.get("/v1/attention")
    assert answer.status_code == 200
    # Without its incidents the detector's drift has no known cause, so it is listed.
    assert [item["kind"] for item in answer.json()["items"]] == ["worker", "new_regime"]


async def test_attention_lists_the_worst_first(pump: Running) -> None:
    """What needs a person is listed with the worst first, and the service describes its store."""
    items = (await pump.http.get("/v1/attention")).json()["items"]
    assert items[0]["kind"] == "worker"  # none was started
    await pump.parts.stores.leases.beat("w1")

    async def nothing_needs_a_person() -> bool:
        items = (await pump.http.get("/v1/attention")).json()["items"]
        return items == []

    await until(nothing_needs_a_person)
    description = (await pump.http.get("/v1/service")).json()
    assert description["store"]["up"] is True
    assert [worker["id"] for worker in description["workers"]] == ["w1"]

    async def process_is_listed() -> bool:
        api = (await pump.http.get("/v1/service")).json()["api"]
        return [process["loaded"] for process in api] == [{"pump": 1}]

    await until(process_is_listed)


async def test_rows_wait_for_a_worker_by_the_store_s_clock(
    pump: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long rows have waited for a worker does not depend on this machine's clock."""
    monkeypatch.setattr(pump.parts.stores.clock, "last_known", lambda: time.time() + 3600.0)

    async def rows_wait() -> bool:
        await pump.parts.stores.leases.beat("w1")
        await pump.http.post("/v1/detectors/pump/score", json={"vectors": [ODD]})
        items = (await pump.http.get("/v1/attention")).json()["items"]
        return "unwatched" in {item["kind"] for item in items}

    await until(rows_wait)


async def test_labels_are_listed_and_deleted(pump: Running, monitor: Monitor) -> None:
    """Labels are listed with sender and time until they are deleted."""
    body = {
        "labels": [{"label": "anomaly", "vector": ODD}, {"label": "normal", "vector": [0.0] * 3}]
    }
    answer = await pump.http.post(f"{PUMP}/feedback", json=body)
    assert (answer.json()["normal"], answer.json()["anomaly"]) == (1, 1)
    labels = (await pump.http.get(f"{PUMP}/labels")).json()["labels"]
    assert [label["label"] for label in labels] == ["normal", "anomaly"]
    assert labels[0]["at"].startswith("20")
    gone = await pump.http.delete(f"{PUMP}/labels/{labels[0]['id']}")
    assert gone.status_code == 204
    assert (await pump.http.delete(f"{PUMP}/labels/{labels[0]['id']}")).status_code == 404
    assert len((await pump.http.get(f"{PUMP}/labels")).json()["labels"]) == 1


async def test_a_deleted_label_ends_the_dismissal_of_its_event(
    pump: Running, monitor: Monitor
) -> None:
    """Rows like an event labelled normal page again once its label is deleted."""
    await score(pump, monitor, [ODD])
    (event,) = (await pump.http.get(f"{PUMP}/events")).json()["events"]
    body = {"labels": [{"label": "normal", "event": event["id"]}]}
    assert (await pump.http.post(f"{PUMP}/feedback", json=body)).status_code == 200
    stored = pump.parts.stores.incidents
    (pattern,) = await stored.dismissed_patterns("pump")
    assert event["id"] in pattern.id
    (label,) = (await pump.http.get(f"{PUMP}/labels")).json()["labels"]
    assert (await pump.http.delete(f"{PUMP}/labels/{label['id']}")).status_code == 204
    assert await stored.dismissed_patterns("pump") == []


async def test_feedback_vectors_go_through_admission(pump: Running) -> None:
    """A vector that nobody saw alarm goes through admission like a batch, whatever its label."""
    rng = np.random.default_rng(0)
    rows = [{"label": "normal", "vector": row.tolist()} for row in rng.normal(size=(40, 3))]
    rows[7] = {"label": "normal", "vector": ODD}
    answer = (await pump.http.post(f"{PUMP}/feedback", json={"labels": rows})).json()
    assert (answer["quarantined"], answer["buffered"]) == (1, 39)


async def test_an_idempotency_key_is_for_one_body(pump: Running) -> None:
    """An idempotency key with another body is refused; with the same body nothing changes."""
    once = {"labels": [{"label": "anomaly", "vector": ODD}]}
    other = {"labels": [{"label": "anomaly", "vector": [1.0, 2.0, 3.0]}]}
    key = {"Idempotency-Key": "monday"}
    for _ in range(2):
        answer = await pump.http.post(f"{PUMP}/feedback", json=once, headers=key)
        assert answer.status_code == 200
    assert len((await pump.http.get(f"{PUMP}/labels")).json()["labels"]) == 1
    refused = await pump.http.post(f"{PUMP}/feedback", json=other, headers=key)
    assert refused.status_code == 422


async def test_generations_list_who_moved_the_champion(pump: Running) -> None:
    """The list of generations says who moved the champion, how and why, newest first."""
    moves = (await pump.http.get(f"{PUMP}/generations")).json()["generations"]
    assert [(move["generation"], move["action"]) for move in moves] == [(1, "promote")]


async def test_rows_that_alarmed_are_held_back(pump: Running, monitor: Monitor) -> None:
    """A row that alarmed when it was scored waits for a person, unless the sender vouches."""
    rng = np.random.default_rng(0)
    regime = (rng.normal(size=(60, 3)) * 0.1 + 70.0).tolist()  # alone it would be a new regime
    fresh = (rng.normal(size=(60, 3)) * 0.1 + 70.0).tolist()
    answer = await pump.http.post(f"{PUMP}/normal", json={"vectors": fresh})
    assert answer.json()["quarantined"] == 0
    await pump.http.post(f"{PUMP}/score", json={"vectors": regime})
    for flushed in (False, True):
        if flushed:  # known from the store, not only from this process's memory
            await pump.parts.reporter.flush()
        answer = await pump.http.post(f"{PUMP}/normal", json={"vectors": regime})
        assert answer.json()["quarantined"] >= 50, flushed  # the severest of an answer are known
        assert "`vouch`" in answer.json()["why"]
    status = (await pump.http.get(PUMP)).json()
    assert status["waiting"].endswith("rows wait for a person")
    for query, more in (("", {"vouch": True}), ("?vouch=true", {})):
        body = {"vectors": regime} | more
        vouched = await pump.http.post(f"{PUMP}/normal{query}", json=body)
        assert vouched.json()["quarantined"] == 0, body.keys()
    for call, more in (
        ("normal?vouch=yes", {}),
        ("normal", {"vouch": "yes"}),
        ("normal", {"vouch": 1}),
        ("score", {"vouch": True}),
    ):
        refused = await pump.http.post(f"{PUMP}/{call}", json={"vectors": regime} | more)
        assert refused.status_code == 422, (call, more)
        assert ("vouch" in refused.json()["detail"]) == (call != "score")


async def test_a_row_is_held_back_before_its_alarm_is_in_the_store(
    pump: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is held back also while the report of its alarm is still on its way to the store."""
    reporter, go = pump.parts.reporter, threading.Event()
    summarise = reporter._summarise

    def summarise_late(*args: Any) -> Any:
        assert go.wait(PATIENCE)
        return summarise(*args)

    monkeypatch.setattr(reporter, "_summarise", summarise_late)
    regime = (np.random.default_rng(0).normal(size=(60, 3)) * 0.1 + 70.0).tolist()
    await pump.http.post(f"{PUMP}/score", json={"vectors": regime})
    reporting = asyncio.create_task(reporter.flush())
    try:
        await until(lambda: not reporter._pending)
        answer = await pump.http.post(f"{PUMP}/normal", json={"vectors": regime})
    finally:
        go.set()
        await reporting
    assert answer.json()["quarantined"] >= 50


async def test_a_dismissal_releases_no_rows_of_another_incident(
    pump: Running, monitor: Monitor
) -> None:
    """Of rows that came at the same time, even in one batch, another incident's rows wait."""
    regime, fault = [[70.0, 70.0, 70.0 + i / 10] for i in range(4)], [[-90.0, 0.0, 0.0]] * 4
    for source, rows in (("a", regime), ("b", fault)):
        body = {"vectors": rows, "sources": [source] * 4}
        await pump.http.post(f"{PUMP}/score", json=body)
    await pump.parts.reporter.flush()
    await monitor.tick()
    sent = [row for pair in zip(regime, fault, strict=True) for row in pair]
    answer = await pump.http.post(f"{PUMP}/normal", json={"vectors": sent})
    assert answer.json()["quarantined"] == 8
    (of_a,) = [incident for incident in await incidents(pump) if incident["source"] == "a"]
    path = f"{PUMP}/incidents/{of_a['id']}"
    answer = await pump.http.post(path, json={"decision": "dismiss"})
    assert "4 rows that waited in quarantine" in answer.json()["effect"]
    (entry,) = (await pump.http.get(f"{PUMP}/quarantine")).json()["quarantine"]
    waits = (await pump.http.get(f"{PUMP}/quarantine/{entry['id']}")).json()
    assert (entry["vectors"], waits["vectors"]) == (4, fault)
    status = (await pump.http.get(PUMP)).json()
    assert (status["buffered"], status["quarantined"]) == (8, 4)  # with the four kept rows


async def test_a_dismissal_buffers_the_held_rows(pump: Running, monitor: Monitor) -> None:
    """Rows held back because of an incident are buffered once it is dismissed."""
    await score(pump, monitor, [ODD] * 4)
    (incident,) = await incidents(pump)
    during = await pump.http.post(f"{PUMP}/normal", json={"vectors": [[70.5, 70.0, 70.0]] * 3})
    assert "`vouch`" in during.json()["why"]
    status = (await pump.http.get(PUMP)).json()
    assert (status["buffered"], status["waiting"]) == (0, "3 rows wait for a person")
    path = f"{PUMP}/incidents/{incident['id']}"
    answer = (await pump.http.post(path, json={"decision": "dismiss"})).json()
    assert "3 rows that waited in quarantine" in answer["effect"]
    status = (await pump.http.get(PUMP)).json()
    assert (status["buffered"], status["quarantined"]) == (7, 0)
    answer = (await pump.http.post(path, json={"decision": "withdraw"})).json()
    assert "released from quarantine stay buffered or learned: 3 rows" in answer["effect"]
    assert (await pump.http.get(PUMP)).json()["buffered"] == 3


async def test_two_labels_are_enough_to_learn(pump: Running, monitor: Monitor) -> None:
    """A retraining takes two labelled rows alone; two rows without labels are refused."""
    rows = {"vectors": [[0.1, 0.2, 0.3]] * 2}
    assert (await pump.http.post(f"{PUMP}/normal", json=rows)).json()["accepted"] == 2
    few = await pump.http.post(f"{PUMP}/retrain")
    assert (few.status_code, few.json()["needed"]) == (409, 32)
    await score(pump, monitor, [ODD] * 2)
    events = (await pump.http.get(f"{PUMP}/events")).json()["events"]
    labels = [{"label": "normal", "event": event["id"]} for event in events]
    answer = (await pump.http.post(f"{PUMP}/feedback", json={"labels": labels})).json()
    assert answer["effect"].startswith("2 rows labelled normal are learned")
    assert (await pump.http.get(PUMP)).json()["needed"] == 0
    asked = await pump.http.post(f"{PUMP}/retrain")
    assert (asked.status_code, asked.json()["retraining"]["state"]) == (202, "queued")


async def test_rows_that_alarm_at_a_loose_threshold_are_held_back(pump: Running) -> None:
    """At a threshold where one row in five alarms, the rows that alarmed wait, and no others."""
    await pump.make(threshold={"fpr": 0.2})
    rows = np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32).tolist()

    async def scored() -> Any:
        return (await pump.http.post(f"{PUMP}/score", json={"vectors": rows})).json()

    async def many_rows_alarm() -> bool:
        return sum((await scored())["is_anomaly"]) > 15

    await until(many_rows_alarm)
    answer = await scored()
    mild = [
        row for row, p, odd in zip(rows, answer["p_values"], answer["is_anomaly"], strict=True)
        if odd and p > 0.02
    ]  # fmt: skip
    assert mild
    calm = [row for row, odd in zip(rows, answer["is_anomaly"], strict=True) if not odd]
    for sent, held_back in ((mild, len(mild)), (calm[:20], 0)):
        answer = await pump.http.post(f"{PUMP}/normal", json={"vectors": sent})
        assert answer.json()["quarantined"] == held_back


async def test_hold_novel_holds_back_every_novel_row(pump: Running) -> None:
    """With `hold_novel` nothing novel is learned before a person releases it."""
    await pump.make(admission="hold_novel")
    regime = (np.random.default_rng(0).normal(size=(60, 3)) * 0.1 + 70.0).tolist()

    async def config_is_in_memory() -> bool:
        detector = pump.parts.champions.detector("pump")
        return detector is not None and detector.config.admission == "hold_novel"

    await until(config_is_in_memory)
    answer = await pump.http.post(f"{PUMP}/normal", json={"vectors": regime + [[0.0] * 3] * 9})
    assert (answer.json()["accepted"], answer.json()["quarantined"]) == (9, 60)
