"""The page as HTML: first paint, empty states, files, and access."""

import asyncio
import re
import time

import httpx
import msgspec
import pytest

from models.drift.finding import FeatureFinding, Finding, Statistics
from service.api.incident_documents import HistoryBucket
from service.api.page.detector import ListedGate, headline
from service.api.page.overview import status_of
from service.domain.drift_report import Drift
from service.domain.incident import Incident, IncidentRule
from service.domain.scope import Scope
from service.store.redis_keys import Keys
from service.timestamps import rfc3339
from service.worker.drift_monitor import Monitor
from tests.contract.running import Running
from tests.contract.test_contract_incidents import ODD, incidents, monitor, score
from tests.contract.test_contract_keys import guarded, key
from tests.contract.test_contract_session import logged_in
from tests.service.trained import Versions

__all__ = ["guarded", "monitor"]
pytestmark = pytest.mark.anyio


async def test_an_empty_overview_names_the_first_command(api: Running):
    """The overview of a service without detectors names the first command."""
    page = await api.http.get("/")
    assert page.status_code == 200
    assert "There is no detector yet" in page.text
    assert "anamnesis learn FILE" in page.text


async def test_data_is_in_the_html_before_scripts_run(pump: Running, versions: Versions):
    """Names, versions and states are in the HTML before any script has run."""
    await pump.serve(versions[1])
    overview = (await pump.http.get("/")).text
    assert 'href="/detectors/pump?range=24h"' in overview
    detector = (await pump.http.get("/detectors/pump?range=7d")).text
    assert "Roll back to 1" in detector
    assert "is forgotten" in detector
    assert re.search(r'range=7d" aria-current', detector)


async def test_a_rejected_version_is_promoted_and_not_rolled_back_to(
    pump: Running, versions: Versions
):
    """A version that never served is offered for promotion, with the gate's reasons."""
    await pump.learn(versions[1], good=False)
    await pump.serve(versions[1])
    page = (await pump.http.get("/detectors/pump")).text
    assert "Promote 2" in page
    assert "Roll back to 2" not in page
    assert "The gate rejected it: worse on old normals" in page
    assert "Roll back to 1" in page


async def test_the_overview_says_which_detector_is_muted(pump: Running):
    """A muted detector calls nobody, so the overview says that it is muted."""
    assert "muted until" not in (await pump.http.get("/")).text
    await pump.http.post("/v1/detectors/pump/mute", json={"seconds": 600})
    assert "muted until" in (await pump.http.get("/")).text


async def test_an_open_incident_is_shown_in_every_time_range(pump: Running, monitor: Monitor):
    """The page of a detector never says that all is normal while an incident is open."""
    ahead = [rfc3339(time.time() + 3600 + i) for i in range(4)]
    await score(pump, monitor, [ODD] * 4, timestamps=ahead)
    past = {"from": rfc3339(time.time() - 7200), "to": rfc3339(time.time() - 3600)}
    for query in ({}, past):
        page = (await pump.http.get("/detectors/pump", params=query)).text
        assert "One incident is open since" in page
        assert "No incident in this time range" not in page


async def test_an_incident_without_kept_rows_has_no_known_reason(pump: Running, monitor: Monitor):
    """If no row was kept, the page does not say that the rows are rare as a whole."""
    await score(pump, monitor, [ODD] * 4)
    (listed,) = await incidents(pump)
    path = f"/detectors/pump/incidents/{listed['id']}"
    keys, redis = Keys("pump"), pump.parts.stores.redis
    packed = await redis.hget(keys.incidents, listed["id"])
    bare = msgspec.structs.replace(msgspec.msgpack.decode(packed, type=Incident), leading=())
    await redis.hset(keys.incidents, listed["id"], msgspec.msgpack.encode(bare))
    assert "the rows are rare as a whole" in (await pump.http.get(path)).text
    await redis.delete(keys.incident_rows)
    page = (await pump.http.get(path)).text
    assert "Not known, because no row of this incident is kept" in page
    assert "rare as a whole" not in page


async def test_an_incident_says_once_that_nobody_was_told(pump: Running, monitor: Monitor):
    """The page of an incident that pages nobody says so once, with the reason."""
    old = [rfc3339(time.time() - 7200 + i) for i in range(4)]
    await score(pump, monitor, [ODD] * 4, timestamps=old)
    (listed,) = await incidents(pump)
    page = (await pump.http.get(f"/detectors/pump/incidents/{listed['id']}")).text
    assert page.lower().count("nobody was told") == 1
    assert "nobody was told, because the rows were over an hour old" in page


async def test_an_incident_links_to_those_of_the_same_kind(pump: Running, monitor: Monitor):
    """The page of an incident lists other incidents that the same feature leads."""
    await score(pump, monitor, [ODD] * 8, sources=["a", "b"] * 4)
    first, second = await incidents(pump)
    page = await pump.http.get(f"/detectors/pump/incidents/{first['id']}")
    assert page.status_code == 200
    assert f'href="/detectors/pump/incidents/{second["id"]}"' in page.text


async def test_the_overview_has_no_drift_of_a_detector_that_has_not_learned(api: Running):
    """Nothing was learned, so nothing can have drifted, and no green word says that all is well."""
    await api.http.put("/v1/detectors/new", json={"features": ["a", "b"]})
    for path in ("/", "/detectors/new"):
        assert 'class="state none"' not in (await api.http.get(path)).text


def bucket(rows: int, alarms: int) -> HistoryBucket:
    return HistoryBucket("2026-11-29T12:00:00.000Z", rows, alarms, 4.0, 3.0, 0.5, 1, {})


async def test_the_headline_says_when_too_many_rows_alarm(pump: Running):
    """The headline warns if far more rows alarm than the config allows."""
    status = status_of((await pump.http.get("/v1/detectors/pump")).content)
    assert headline(status, [], []).startswith("The detector is ready")
    assert headline(status, [], [bucket(460, 23)]).startswith("All is normal: 23 of 460 rows")
    assert headline(status, [], [bucket(460, 24)]).startswith("Many rows alarm: 24 of 460")
    assert headline(status, [], [bucket(20, 10)]).startswith("All is normal")


async def test_the_panel_says_what_to_do_about_each_drift_state(pump: Running):
    """The panel says what to do about each drift state, also if no feature moved."""
    drift = msgspec.json.encode(Drift("degraded"))
    await pump.parts.stores.redis.set(Keys("pump").drift, drift)
    page = (await pump.http.get("/detectors/pump")).text
    assert "look for the fault" in page.partition('id="drift"')[2].partition("</section>")[0]
    assert "Anomalies come in a burst" in page.partition('id="headline"')[2].partition("</p>")[0]


def panel(page: str, name: str) -> str:
    return page.partition(f'id="{name}"')[2].partition("</section>")[0]


@pytest.mark.parametrize(("beyond", "text"), [(0.03, "not moved"), (0.294, "moved")])
async def test_the_drift_panel_says_whether_the_input_moved(
    pump: Running, beyond: float, text: str
):
    """The panel shows each feature against its bound, and all together against theirs."""
    moved = beyond >= 0.1
    feature = FeatureFinding("speed", 0.25, 0.144, alarm=True)
    statistics = Statistics(features=(feature,), inputs=Finding(beyond, 0.1, moved))
    drift = Drift("new_regime", statistics=statistics, at=rfc3339(time.time()))
    await pump.parts.stores.redis.set(Keys("pump").drift, msgspec.json.encode(drift))
    shown = panel((await pump.http.get("/detectors/pump")).text, "drift")
    assert re.search("speed.*25 %.*14 %.*moved", shown)
    assert f"The input as a whole has {text}: in sum, the features exceed" in shown
    assert f"by {100 * beyond:.2g} %, and it takes 10 %." in shown
    assert ("an alert pages" in shown) == moved


async def test_the_page_counts_one_thing_in_the_singular(api: Running):
    """One buffered vector and one row of one entry are not called vectors and rows."""
    await api.make("pump", features=["a", "b"])
    await api.http.post("/v1/detectors/pump/normal", json={"vectors": [[1.0, 2.0]]})
    page = (await api.http.get("/detectors/pump")).text
    assert "Buffered: 1 vector; missing: 31." in page
    assert not re.search(r"\b1 (vectors|rows)\b", page)


async def test_the_versions_say_what_an_update_forgot(pump: Running, versions: Versions):
    """Beside each version the page says how much more of the replayed old normals alarm with it."""
    await pump.serve(versions[1])
    records = (await pump.http.get("/v1/detectors/pump/versions")).json()["versions"]
    gate = msgspec.convert({"evidence": {"old": {"candidate": 0.03, "champion": 0.01}}}, ListedGate)
    assert gate.forgetting == pytest.approx(0.02)
    assert ListedGate().forgetting is None
    shown = panel((await pump.http.get("/detectors/pump")).text, "versions")
    assert "forgetting</th>" in shown
    assert len(records) == shown.count("<tr><td")


@pytest.mark.parametrize(
    ("needed", "told"),
    [
        (25920, "It has 3,454 of them and needs 25,920, which is 3 d of the present traffic."),
        (None, "on normals that trainings left out, and first needs an hour of traffic."),
    ],
)
async def test_the_page_says_how_much_the_calibration_of_incidents_lacks(
    pump: Running, needed: int | None, told: str
):
    """While the rate of false incidents is unknown, the page says how many normals it needs."""
    rule = IncidentRule("insufficient", 3, 10, 2.1, 1.0, None, None, None, 3454, needed)
    await pump.parts.stores.redis.hset(
        Keys("pump").state, "incident_rule", msgspec.json.encode(rule)
    )
    page = (await pump.http.get("/detectors/pump")).text
    assert told in " ".join(panel(page, "incidents").split())


async def test_pages_load_only_their_own_scripts_and_styles(pump: Running):
    """Every script and style comes from this service, at an address that may be cached for ever."""
    for path in ("/", "/detectors/pump", "/login", "/docs"):
        page = await pump.http.get(path)
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert not re.search(r"<script(?![^>]*(src=|application/json))", page.text)
        assert "style=" not in page.text
        for file in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            answer = await pump.http.get(file)
            assert answer.status_code == 200, file
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers["cache-control"].count("no-store") == 0
    assert (await pump.http.get("/static/0/page.js")).status_code == 404


async def test_names_are_shown_as_text(api: Running):
    """The name that a client gave a feature is shown as text, never as markup."""
    await api.make("pump", features=["<script>alert(1)</script>", "b"])
    page = (await api.http.get("/detectors/pump")).text
    assert "<script>alert" not in page
    missing = await api.http.get("/detectors/%3Cscript%3E")
    assert missing.status_code in {404, 422}
    assert "<script>" not in missing.text.replace('<script type="module"', "")


@pytest.mark.parametrize("name", ["%00", "pump%00", "pump%0A", "pump%3Flimit=1", "pump%23", "%25"])
async def test_a_name_that_no_detector_has_is_not_found(pump: Running, name: str):
    """Escaped characters such as `?` and NUL belong to the name, so no such detector is found."""
    for path in (f"/detectors/{name}", f"/detectors/pump/incidents/{name}"):
        assert (await pump.http.get(path)).status_code == 404


async def test_a_key_of_one_detector_sees_that_detector_alone(guarded: Running):
    """Without a session the page leads to the login; with one it shows what the key covers."""
    async with httpx.AsyncClient(base_url=str(guarded.http.base_url)) as nobody:
        redirect = await nobody.get("/detectors/pump")
    assert redirect.status_code == 303
    assert redirect.headers["location"] == "/login?next=/detectors/pump"
    async with logged_in(guarded, await key(guarded, {Scope.READ}, {"pump"})) as (client, token):
        overview = (await client.get("/")).text
        assert "/detectors/pump" in overview
        assert "press" not in overview
        assert token in overview
        shown = (await client.get("/detectors/pump")).text
        assert "key allows: read" in shown
        assert re.findall(r"<button[^>]*data-method=.(\w+)", shown) == ["DELETE"]  # log out
        assert (await client.get("/detectors/press")).status_code == 404


async def test_the_event_stream_names_a_changed_detector(pump: Running, versions: Versions):
    """The stream of an open page names a detector whose state changed."""
    async with pump.http.stream("GET", "/v1/stream", timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        await pump.learn(versions[1])
        async with asyncio.timeout(60):
            async for line in lines:
                if line.startswith("data:"):
                    assert '"pump"' in line
                    break
