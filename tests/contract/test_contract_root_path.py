"""A service behind a proxy that adds a path prefix for clients and strips it."""

import re

import httpx
import pytest

from tests.contract.running import running

pytestmark = pytest.mark.anyio

ROOT = "/sense"
KEY = "k" * 40
_LINK = re.compile(r'(?:href|src|action|data-path|data-then)="([^"]*)"')


async def test_every_link_has_the_root_path(store_url: str, tmp_path) -> None:
    """Pages, redirects, cookie, docs and locations contain the prefix, and all links work."""
    key = tmp_path / "key"
    key.write_text(KEY)
    async with running(store_url, root_path=f"{ROOT}/", admin_key_file=key) as api:

        async def stripped(request: httpx.Request) -> httpx.Response:
            assert request.url.path.startswith(f"{ROOT}/"), request.url
            raw = request.url.raw_path.removeprefix(ROOT.encode())
            request.url = request.url.copy_with(raw_path=raw)
            return await api.http._transport.handle_async_request(request)

        class Proxy(httpx.AsyncBaseTransport):
            handle_async_request = staticmethod(stripped)

        base = str(api.http.base_url)
        async with httpx.AsyncClient(transport=Proxy(), base_url=base) as browser:
            first = await browser.get(f"{ROOT}/detectors/pump?range=7d")
            assert first.headers["location"].startswith(f"{ROOT}/login?next={ROOT}/detectors/pump")
            session = await browser.post(f"{ROOT}/v1/session", json={"key": KEY})
            assert session.status_code == 201
            assert f"Path={ROOT}/" in session.headers["set-cookie"]
            csrf = {"X-CSRF-Token": session.json()["csrf"]}
            made = await browser.put(f"{ROOT}/v1/detectors/pump", json={}, headers=csrf)
            assert made.status_code == 201, made.text
            for page in ("", "detectors/pump", "login", "docs"):
                shown = await browser.get(f"{ROOT}/{page}")
                assert shown.status_code == 200
                assert f'data-root="{ROOT}"' in shown.text
                links = [link for link in _LINK.findall(shown.text) if link[:1] not in {"#", "?"}]
                assert links
                assert all(link.startswith((f"{ROOT}/", "data:")) for link in links), links
                for link in links:
                    if "/static/" in link:
                        assert (await browser.get(link)).status_code == 200
            document = (await browser.get(f"{ROOT}/openapi.json")).json()
            assert document["servers"] == [{"url": ROOT}]
            gone = await browser.delete(f"{ROOT}/v1/session", headers=csrf)
            assert f"Path={ROOT}/" in gone.headers["set-cookie"]
