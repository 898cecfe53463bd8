"""The page in a real browser, with API keys: login, decisions, an ended session, several tabs."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from service.domain.scope import Scope
from service.settings import Settings
from service.store.connection import connect
from service.worker.drift_monitor import Monitor
from tests.contract.conftest import versions
from tests.contract.running import Running
from tests.contract.test_contract_admission import scattered, send
from tests.contract.test_contract_incidents import ODD, incidents, score
from tests.contract.test_contract_keys import PUMP, guarded, key
from tests.page.test_browser import SLOW, accessible, anyio_backend, browser, scheme, tab
from tests.service.stored import monitor_over

__all__ = ["anyio_backend", "browser", "guarded", "scheme", "tab", "versions"]
pytestmark = pytest.mark.anyio


@pytest.fixture
async def monitor(guarded: Running, store_url: str) -> AsyncIterator[Monitor]:
    """Return a monitor of the service's store, as a worker has it."""
    async with await connect(store_url, deadline=20.0) as redis:
        created = monitor_over(redis, Settings(lease_seconds=30.0))
        yield created
        await created.close()


async def log_in(tab: Page, api: Running, secret: str, path: str) -> None:
    """Open `path`, log in where it leads to, and arrive at `path`."""
    await tab.goto(f"http://127.0.0.1:{api.port}{path}")
    await submit_key(tab, secret)
    await expect(tab).to_have_url(f"http://127.0.0.1:{api.port}{path}")


async def submit_key(tab: Page, secret: str) -> None:
    """Fill in the log-in page."""
    await expect(tab.locator("h1")).to_have_text("Log in", timeout=SLOW)
    await tab.get_by_label("API key").fill(secret)
    await tab.get_by_role("button", name="Log in").click()


async def decide(tab: Page, button: str, reason: str | None = None) -> None:
    """Click a button and confirm its dialog."""
    await tab.get_by_role("button", name=button, exact=True).first.click()
    dialog = tab.get_by_role("dialog")
    await expect(dialog.get_by_role("textbox")).to_be_visible(visible=reason is not None)
    if reason is not None:
        await dialog.get_by_role("textbox").fill(reason)
    await dialog.get_by_role("button", name="Do it").click()


async def test_a_key_of_one_detector_decides_about_its_quarantine(
    guarded: Running, tab: Page
) -> None:
    """After the login, one entry is released and one discarded; other detectors are not shown."""
    first, second = [await send(guarded, scattered(n)) for n in (20, 30)]
    assert (first["quarantined"], second["quarantined"]) == (20, 30)
    secret = await key(guarded, {Scope.READ, Scope.ADMIN}, {"pump"})
    await log_in(tab, guarded, secret, "/detectors/pump")
    entries = tab.locator("#quarantine li")
    await expect(entries).to_have_count(2)
    await entries.filter(has_text="20 vectors").get_by_role("button", name="Release").click()
    await expect(tab.locator("#message")).to_contain_text("Released", timeout=SLOW)
    await expect(entries).to_have_count(1, timeout=SLOW)
    await decide(tab, "Discard")
    await expect(tab.locator("#message")).to_contain_text("Discarded", timeout=SLOW)
    await expect(tab.locator("#quarantine")).to_contain_text("Nothing is held back", timeout=SLOW)
    status = (await guarded.http.get(PUMP)).json()
    assert (status["buffered"], status["quarantined"]) == (20, 0)
    await tab.get_by_role("link", name="anamnesis").click()
    await expect(tab.locator("#detectors tbody tr")).to_have_count(1)
    await expect(tab.locator("#detectors")).to_contain_text("pump")
    await expect(tab.locator("#service")).to_contain_text("could not be read")
    await accessible(tab)


async def test_an_ended_session_leads_to_the_login_and_back(guarded: Running, tab: Page) -> None:
    """When a key is revoked, its open page leads to the login, and from there to the same page."""
    secret = await key(guarded, {Scope.READ}, None)
    await log_in(tab, guarded, secret, "/detectors/pump?range=7d")
    (shown,) = [listed for listed in (await guarded.http.get("/v1/keys")).json()["keys"]
                if listed["scopes"] == ["read"]]  # fmt: skip
    assert (await guarded.http.delete(f"/v1/keys/{shown['id']}")).status_code == 204
    await submit_key(tab, await key(guarded, {Scope.READ}, None))
    await expect(tab).to_have_url(re.compile(r"/detectors/pump\?range=7d$"))
    await tab.get_by_role("button", name="Log out").click()
    await expect(tab.locator("h1")).to_have_text("Log in", timeout=SLOW)
    await tab.go_back()
    await expect(tab.locator("h1")).to_have_text("Log in", timeout=SLOW)


async def test_two_tabs_show_the_same_decision(
    guarded: Running, monitor: Monitor, tab: Page
) -> None:
    """A decision in one tab is shown in the other; its withdrawal there is shown in the first.

    A page updates itself once a minute in any case. So the change must appear within half a minute.
    """
    await score(guarded, monitor, [[0.0] * 3] * 20 + [ODD] * 4)
    (incident,) = await incidents(guarded)
    secret = await key(guarded, {Scope.READ, Scope.LABEL}, None)
    await log_in(tab, guarded, secret, "/detectors/pump")
    path = f"/detectors/pump/incidents/{incident['id']}"
    other = await tab.context.new_page()
    await other.goto(f"http://127.0.0.1:{guarded.port}{path}")
    await tab.locator("#incidents a").click()
    await decide(tab, "Confirm: a fault", "a leak")
    await expect(tab.locator("#message")).to_contain_text("anomal", timeout=SLOW)
    await expect(other.locator("#verdict")).to_contain_text("a leak", timeout=SLOW / 2)
    await decide(other, "Withdraw", "no leak")
    await expect(other.locator("#message")).to_contain_text("not learned", timeout=SLOW)
    await monitor.tick()
    await expect(tab.locator("#verdict")).to_contain_text(
        "was withdrawn: no leak", timeout=SLOW / 2
    )
    await tab.go_back()
    await expect(tab.locator("#incidents tbody tr")).to_contain_text("open", timeout=SLOW)
