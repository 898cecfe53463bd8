"""The page in a real browser: what a person sees, clicks, and hears from a screen reader."""

import os
import shutil
from collections.abc import AsyncIterator

import numpy as np
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from service.store.retrainings import Retrainings, TrainingProgress
from service.worker.drift_monitor import Monitor
from tests.contract.conftest import api, pump, versions
from tests.contract.running import Running
from tests.contract.test_contract_incidents import ODD, incidents, monitor, score
from tests.service.trained import Versions

__all__ = ["api", "monitor", "pump", "versions"]
pytestmark = pytest.mark.anyio

# The folder in which a person wants the pictures of the pages: docs/images.
PICTURES = os.environ.get("PICTURES")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PUMP = "/v1/detectors/pump"
SLOW = 60_000  # milliseconds, so that a busy machine causes no failure


@pytest.fixture
def scheme(request: pytest.FixtureRequest) -> str:
    """Return the colour scheme that a test asks for."""
    return str(getattr(request, "param", "light"))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run the tests of a file in one event loop, in which their browser stays open."""
    return "asyncio"


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """Start a browser for all tests of a file: that takes longer than most of them."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        async with browser:
            yield browser


@pytest.fixture
async def tab(browser: Browser, scheme: str) -> AsyncIterator[Page]:
    """Open a tab, with no cookies, in which no page may have an error or call another service."""
    context = await browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    async with context:
        page = await context.new_page()
        page.set_default_timeout(SLOW)
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda message: failures.extend(_failures(message)))
        yield page
        assert not failures


def _failures(message: ConsoleMessage) -> list[str]:
    """Return the error in a console message. Answers 401 and 409 are not errors of the page."""
    refused = "status of 409" in message.text or "status of 401" in message.text
    return [message.text] if message.type == "error" and not refused else []


async def accessible(page: Page) -> None:
    """Fail if axe finds a problem of accessibility."""
    results = await Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


async def test_typical_and_drawn_vectors_are_shown_as_pictures(pump: Running, tab: Page) -> None:
    """Typical and drawn vectors are shown as pictures if the config says that rows are pictures."""
    assert (await pump.http.patch(PUMP, json={"shape": [1, 3]})).status_code == 200
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    picture = tab.locator("#memory figure", has_text="typical of regime 1").locator("canvas")
    await expect(picture).to_be_visible()
    await expect(tab.locator("#memory figure", has_text="drawn 1").first).to_be_visible()
    grey = await picture.evaluate(
        "it => [...it.getContext('2d').getImageData(0, 0, 3, 1).data].filter((_, i) => i % 4 === 0)"
    )
    assert (len(grey), min(grey), max(grey)) == (3, 0, 255)
    await accessible(tab)


@pytest.mark.parametrize("scheme", ["light", "dark"], indirect=True)
async def test_every_page_is_accessible_and_fits_a_small_screen(
    pump: Running, versions: Versions, monitor: Monitor, tab: Page, scheme: str
) -> None:
    """No page has an axe violation, and on a small screen no page scrolls sideways."""
    await pump.serve(versions[1])
    await score(pump, monitor, [[0.0] * 3] * 20 + [ODD] * 4)
    (incident,) = await incidents(pump)
    fault = f"/detectors/pump/incidents/{incident['id']}"
    base = f"http://127.0.0.1:{pump.port}"
    pages = {"overview": "/", "detector": "/detectors/pump", "incident": fault}
    pages |= {"operations": "/operations", "login": "/login"}
    for page, path in pages.items():
        await tab.goto(base + path)
        await expect(tab.locator("h1")).to_be_visible()
        await accessible(tab)
        if PICTURES:
            name = page if scheme == "light" else f"{page}-{scheme}"
            await tab.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)
    await tab.set_viewport_size({"width": 320, "height": 800})
    for path in ("/", "/detectors/pump", fault, "/operations"):
        await tab.goto(base + path)
        await tab.locator("main a").first.evaluate("it => { it.textContent = 'x'.repeat(64); }")
        wide = await tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path


async def test_a_rollback_asks_for_a_reason_and_the_page_shows_it(
    pump: Running, versions: Versions, tab: Page
) -> None:
    """The dialog says what is forgotten; the older version then serves, and a way back exists."""
    await pump.serve(versions[1])
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await tab.get_by_role("button", name="Roll back to 1").click()
    dialog = tab.get_by_role("dialog")
    await expect(dialog).to_contain_text("is forgotten")
    await dialog.get_by_role("textbox").fill("it alarms on Mondays")
    await dialog.get_by_role("button", name="Do it").click()
    await expect(tab.locator("#message")).to_contain_text("Version 1 serves.", timeout=SLOW)
    assert (await pump.http.get(PUMP)).json()["champion"] == 1
    await expect(tab.locator("#versions")).to_contain_text("it alarms on Mondays", timeout=SLOW)
    await tab.get_by_role("button", name="Promote 2").click()
    await expect(dialog).to_contain_text("Version 2 will serve instead of version 1.")
    await dialog.get_by_role("button", name="Do it").click()
    await expect(tab.locator("#message")).to_contain_text("Version 2 serves.", timeout=SLOW)


async def test_a_mute_needs_a_reason_and_shows_it(pump: Running, tab: Page) -> None:
    """A mute needs a reason; the page shows both, and can end the mute."""
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await tab.get_by_role("button", name="Mute for 2 hours").click()
    dialog = tab.get_by_role("dialog")
    await dialog.get_by_role("button", name="Do it").click()
    await expect(dialog).to_be_visible()  # there is no reason yet
    await dialog.get_by_role("textbox").fill("planned service")
    await dialog.get_by_role("button", name="Do it").click()
    await expect(tab.locator("#mute")).to_contain_text("UTC: planned service", timeout=SLOW)
    await tab.get_by_role("button", name="End the mute").click()
    await expect(tab.get_by_role("button", name="Mute for 2 hours")).to_be_visible(timeout=SLOW)


async def test_a_failed_request_is_explained_in_a_sentence(pump: Running, tab: Page) -> None:
    """A page says what to do if nothing answers, or if a proxy answers instead of the service."""
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    message = tab.locator("#message")
    html = "Promise.resolve(new Response('<html>', {status: 502}))"
    nobody = "Promise.reject(new TypeError('Failed to fetch'))"
    for answer, text in ((html, "The answer has the status 502"), (nobody, "does not answer")):
        await tab.evaluate(f"() => {{ window.fetch = () => {answer}; }}")
        await tab.get_by_role("button", name="Mute for 2 hours").click()
        await tab.get_by_role("dialog").get_by_role("textbox").fill("planned service")
        await tab.get_by_role("dialog").get_by_role("button", name="Do it").click()
        await expect(message).to_contain_text(text, timeout=SLOW)
        await expect(message).to_have_class("bad")


async def test_an_open_page_says_why_it_is_not_updated(
    pump: Running, versions: Versions, tab: Page
) -> None:
    """If an update fails, the open page shows its problem and nothing else of the answer."""
    failed = await pump.http.get("/detectors/nobody")
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await tab.evaluate(
        "html => { window.fetch = () => Promise.resolve(new Response(html, {status: 503})); }",
        failed.text,
    )
    await pump.learn(versions[1])
    message = "This page may be out of date. There is no such detector."
    await expect(tab.locator("#message")).to_have_text(message, timeout=SLOW)


async def test_a_page_that_failed_is_shown_again(pump: Running, tab: Page) -> None:
    """A page that was opened while the store was away is shown once the store is back."""
    failed = (await pump.http.get("/detectors/nobody")).text
    assert "data-again" not in failed  # the page of a missing detector is not read again
    temporary = failed.replace("</main>", "<p data-again></p></main>")
    await tab.route("**/detectors/pump", lambda route: route.fulfill(body=temporary), times=1)
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await expect(tab.locator("h1")).to_have_text("This page cannot be shown")
    await expect(tab.locator("h1")).to_have_text("pump", timeout=SLOW)


async def test_a_panel_that_could_not_be_read_is_read_again(pump: Running, tab: Page) -> None:
    """A panel that failed while the store was busy is shown without a reload."""
    page = (await pump.http.get("/detectors/pump")).text
    failed = page.replace("Nothing is held back.", '<span class="passing">not read</span>')
    assert failed != page
    # The first answer is the page, the second its update when the stream opens.
    await tab.route("**/detectors/pump", lambda route: route.fulfill(body=failed), times=2)
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await expect(tab.locator("#quarantine")).to_contain_text("not read")
    await expect(tab.locator("#quarantine")).to_contain_text("Nothing is held", timeout=30_000)


async def test_a_page_listens_again_after_an_answer_that_is_no_stream(
    pump: Running, versions: Versions, tab: Page
) -> None:
    """If a proxy answers the stream once, the browser gives it up; the page opens it again."""
    await tab.route("**/v1/stream", lambda route: route.fulfill(status=204), times=1)
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await expect(tab.locator("#message")).to_contain_text("The connection is back", timeout=SLOW)
    await pump.learn(versions[1])
    await expect(tab.get_by_role("button", name="Roll back to 1")).to_be_visible(timeout=SLOW)


async def test_a_later_person_sees_the_earlier_decision(
    pump: Running, monitor: Monitor, tab: Page
) -> None:
    """A decision about an incident that another person decided meanwhile changes nothing."""
    await score(pump, monitor, [[0.0] * 3] * 20 + [ODD] * 4)
    (incident,) = await incidents(pump)
    path = f"/detectors/pump/incidents/{incident['id']}"
    await tab.goto(f"http://127.0.0.1:{pump.port}{path}")
    await tab.get_by_role("button", name="Dismiss").click()
    await pump.http.post(f"/v1{path}", json={"decision": "confirm", "why": "a leak"})
    async with tab.expect_response(lambda answer: answer.request.method == "POST") as answered:
        await tab.get_by_role("dialog").get_by_role("button", name="Do it").click()
    assert (await answered.value).status == 409
    await expect(tab.locator("#message")).to_contain_text("in the meantime (a leak)", timeout=SLOW)
    await expect(tab.locator("#verdict")).to_contain_text("confirmed", timeout=SLOW)
    await expect(tab.locator("#verdict")).to_contain_text("Decided by", timeout=SLOW)
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    row = tab.locator("#incidents tr", has_text="is expected").first
    await expect(row.locator("td").first).to_have_text(f"{incident['state']} confirmed")


async def test_a_page_that_stays_open_shows_a_new_version(
    pump: Running, versions: Versions, tab: Page
) -> None:
    """A new champion appears on an open page without a reload."""
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await pump.learn(versions[1])
    await expect(tab.get_by_role("button", name="Roll back to 1")).to_be_visible(timeout=SLOW)


async def test_a_page_that_the_browser_kept_shows_a_new_version(
    pump: Running, versions: Versions, tab: Page
) -> None:
    """A page that comes back from the browser's memory follows the service again."""
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await tab.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    await tab.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    await pump.learn(versions[1])
    await expect(tab.get_by_role("button", name="Roll back to 1")).to_be_visible(timeout=30_000)


async def test_an_incident_shows_the_leading_columns_and_the_rows_as_pictures(
    pump: Running, monitor: Monitor, tab: Page
) -> None:
    """Of the columns of the worst rows those that lead come first; rows may be pictures."""
    assert (await pump.http.patch(PUMP, json={"shape": [1, 3]})).status_code == 200
    await score(pump, monitor, [[0.0] * 3] * 20 + [[0.0, 0.0, 70.0]] * 4)
    (incident,) = await incidents(pump)
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump/incidents/{incident['id']}")
    rows = tab.get_by_role("region", name="Table of the worst rows")
    await expect(rows.locator("th").nth(2)).to_have_text("2")
    await expect(rows.locator("tbody tr").first.locator("td").nth(2)).to_have_text("70")
    await expect(tab.locator("figure canvas")).to_have_count(4)
    await accessible(tab)


async def test_dismissing_an_incident_shows_the_effect(
    pump: Running, monitor: Monitor, tab: Page
) -> None:
    """A person dismisses an incident from the overview, with a reason; the effect is shown."""
    await score(pump, monitor, [[0.0] * 3] * 20 + [ODD] * 4)
    await tab.goto(f"http://127.0.0.1:{pump.port}/")
    await tab.locator("#attention a", has_text="is expected").click()
    await expect(tab.locator("h1")).to_contain_text("is expected", timeout=SLOW)
    await tab.get_by_role("button", name="Dismiss").click()
    await tab.get_by_role("dialog").get_by_role("textbox").fill("a wash")
    await tab.get_by_role("dialog").get_by_role("button", name="Do it").click()
    await expect(tab.locator("#message")).to_contain_text("normal", timeout=SLOW)
    (incident,) = await incidents(pump)
    assert (incident["verdict"], incident["why"]) == ("dismissed", "a wash")
    await expect(tab.locator("#verdict")).to_contain_text("dismissed", timeout=SLOW)


async def test_the_arrow_keys_move_along_the_chart(
    pump: Running, monitor: Monitor, tab: Page
) -> None:
    """The arrow keys move along the chart, and each point is described in words."""
    await score(pump, monitor, [[0.0] * 3] * 20 + [ODD] * 4)
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    await expect(tab.locator(".chart canvas")).to_be_visible(timeout=SLOW)
    await tab.locator(".chart").press("ArrowLeft")
    await expect(tab.locator("#spoken")).to_contain_text("24 rows, 4 alarms", timeout=SLOW)


async def test_a_person_sees_drawn_rows_and_scores_a_typed_vector(
    pump: Running, versions: Versions, tab: Page
) -> None:
    """A person sees drawn rows and tries a vector; a vector that is too short is explained."""
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    drawn = versions[0].with_faithful_draws().sample(5, 0)
    await expect(tab.locator("#memory tbody tr", has_text="drawn")).to_have_count(len(drawn))
    field = tab.locator("#vector")
    await field.fill("70, 70 70")
    await tab.get_by_role("button", name="Score it").click()
    await expect(tab.locator("#try")).to_contain_text("Anomalous: severity", timeout=SLOW)
    await expect(tab.locator("#try li").first).to_contain_text("is expected")
    await field.fill("0 0 0")
    await field.press("Enter")
    await expect(tab.locator("#try")).to_contain_text("Normal: severity", timeout=SLOW)
    await field.fill("1, 2")
    await field.press("Enter")
    await expect(tab.locator("#try")).to_contain_text("These are 2 values. Give 3")
    await accessible(tab)
    assert (await pump.http.get(f"{PUMP}/events")).json()["events"] == []


async def test_the_page_shows_the_progress_of_a_training(pump: Running, tab: Page) -> None:
    """The page shows a training's progress, its remaining time, and its loss on old and new."""
    stores = pump.parts.stores
    await stores.buffer.ingest("pump", np.zeros((40, 3), np.float32))
    lease = await stores.leases.acquire("pump", 60.0)
    assert lease is not None
    retrainings = Retrainings(stores.redis)
    await retrainings.start(lease)
    await retrainings.progress(lease, TrainingProgress(0.25, 90.0, 3.25, -1.5))
    await tab.goto(f"http://127.0.0.1:{pump.port}/detectors/pump")
    panel = tab.locator("#learning")
    await expect(panel).to_contain_text("running, 25 %")
    await expect(panel).to_contain_text("Loss on new vectors -1.5, on old ones 3.25 nats.")
    await expect(panel.get_by_role("progressbar")).to_have_attribute("value", "0.25")
    await expect(tab.locator("#drift")).to_contain_text("no worker has reported")
    await accessible(tab)
