"""What a service without keys refuses: requests of foreign web pages, and foreign hosts."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.contract.running import Running, running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
VECTORS = {"vectors": [[1, 2, 3]]}
CHANGES = [
    ("PUT", PUMP, {}),
    ("DELETE", PUMP, None),
    ("POST", f"{PUMP}/score", VECTORS),
    ("POST", f"{PUMP}/normal", VECTORS),
    ("POST", f"{PUMP}/retrain", None),
    ("POST", f"{PUMP}/versions", None),
    ("PUT", f"{PUMP}/champion", {"version": 1}),
    ("POST", f"{PUMP}/feedback", {"labels": [{"label": "anomaly", "vector": [1, 2, 3]}]}),
    ("POST", f"{PUMP}/quarantine/v1", {"decision": "discard"}),
    ("POST", f"{PUMP}/revoke", {"key": "anyone", "without_champion": True}),
    ("POST", "/v1/keys", {"name": "evil", "scopes": ["admin"]}),
    ("DELETE", "/v1/keys/any", None),
    ("POST", "/v1/session", {"key": "any"}),
    ("DELETE", "/v1/session", None),
]
READS = [
    ("GET", "/healthz", None), ("GET", "/metrics", None), ("GET", PUMP, None), ("HEAD", PUMP, None),
    ("OPTIONS", PUMP, None), ("GET", "/no/such/path", None), ("PATCH", "/", None),
]  # fmt: skip
FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "null", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},  # another port of this machine
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    {"origin": "http://evil.example", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    {"host": "evil.example"},
    {"host": "evil.example:8000", "sec-fetch-site": "same-origin"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "10.0.0.1"},
    {"host": ""},
]
ALLOWED = [
    {},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:1"},
    {"host": "localhost"},
    {"host": "LOCALHOST.:99"},
    {"host": "[::1]:8000"},
    {"host": "127.9.9.9"},
]
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def every_change(api: Running) -> list[tuple[str, str, Any]]:
    """Return a request for every documented route that is not GET, with the document's example."""
    known = {"name": "pump", "number": "1", "entry": "v1", "key": "any"}
    changes = [*CHANGES]
    for path, operations in (await api.http.get("/openapi.json")).json()["paths"].items():
        place = re.sub(r"\{(\w+)\}", lambda part: known.get(part[1], "1"), path)
        for method, operation in operations.items():
            taken = operation.get("requestBody", {}).get("content", {})
            body = taken.get("application/json", {}).get("example")
            if method != "get" and (method.upper(), place) not in {
                change[:2] for change in CHANGES
            }:
                changes.append((method.upper(), place, body))
    return changes


async def send(
    api: Running, method: str, path: str, body: Any, headers: dict[str, str]
) -> httpx.Response:
    """Send what a web page could send: valid JSON, so that only the origin is wrong."""
    content = None if body is None else orjson.dumps(body)
    typed = {} if body is None else {"content-type": "application/json"}
    return await api.http.request(method, path, content=content, headers=typed | headers)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_foreign_requests_to_any_route_are_refused(
    pump: Running, headers: dict[str, str]
) -> None:
    """A foreign request to any route is 403 `foreign-origin` and has no effect."""
    before = (await pump.http.get(PUMP)).json()
    for method, path, body in await every_change(pump) + READS:
        answer = await send(pump, method, path, body, headers)
        assert answer.status_code == 403, (method, path, answer.text)
        if method != "HEAD":
            # An error of the Open Inference Protocol has its own form.
            kind = answer.json().get("type")
            assert kind == "/problems/foreign-origin" or path.startswith("/v2/")
            assert ("ANAMNESIS_ALLOWED_HOSTS" in answer.text) == ("host" in headers)
            assert "evil" not in answer.text
            assert "API key" in answer.text
    assert (await pump.http.get(PUMP)).json() == before
    assert (await pump.http.get("/v1/keys")).json() == {"keys": []}


@pytest.mark.parametrize(
    ("port", "status"),
    [("65535", 200), ("000080", 200), ("65536", 403), ("99999999", 403), ("9" * 5000, 403)],
)
async def test_a_host_with_an_impossible_port_is_refused(
    pump: Running, port: str, status: int
) -> None:
    """No host has a port above 65535."""
    headers = {"host": f"127.0.0.1:{port}"}
    assert (await send(pump, "GET", "/v1/detectors", None, headers)).status_code == status


async def test_requests_of_clients_and_own_pages_are_served(pump: Running) -> None:
    """Requests of other clients, of the address bar and of the service's own pages are served."""
    for headers in ALLOWED:
        answer = await send(pump, "POST", f"{PUMP}/score", VECTORS, headers)
        assert answer.status_code == 200, (headers, answer.text)
        assert (await send(pump, "GET", "/healthz", None, headers)).status_code == 200
    assert (await send(pump, "GET", "/docs", None, LINK)).status_code == 200
    assert (await send(pump, "DELETE", PUMP, None, LINK)).status_code == 403
    assert (await send(pump, "POST", f"{PUMP}/score", VECTORS, LINK)).status_code == 403


async def test_allowed_hosts_are_served(store_url: str) -> None:
    """ANAMNESIS_ALLOWED_HOSTS adds names; with `insecure` the host is checked only if it is set."""
    evil, good = {"host": "evil.example"}, {"host": "Pumps.Example:80"}
    page = {"origin": "http://evil.example"}
    for insecure, names, statuses in (
        (False, None, [403, 403, 403]),
        (False, "a.example, pumps.example", [403, 200, 403]),
        (True, None, [200, 200, 403]),
        (True, "pumps.example", [403, 200, 403]),
    ):
        async with running(store_url, insecure=insecure, allowed_hosts=names) as api:
            answers = [
                await api.http.get("/healthz", headers=headers) for headers in (evil, good, page)
            ]
        assert [answer.status_code for answer in answers] == statuses, (insecure, names)


async def test_with_a_key_host_and_origin_do_not_matter(pump: Running) -> None:
    """Once the service has an API key, the key alone decides, whatever host and origin are."""
    grant = {"name": "first", "scopes": ["admin", "score"]}
    made = await pump.http.post("/v1/keys", json=grant)
    key = {"authorization": f"Bearer {made.json()['key']}"}
    for headers in FOREIGN[:1] + FOREIGN[7:8]:
        answer = await send(pump, "POST", f"{PUMP}/score", VECTORS, headers | key)
        assert answer.status_code == 200
        assert (await send(pump, "POST", f"{PUMP}/score", VECTORS, headers)).status_code == 401


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", ""])
async def test_bodies_of_another_content_type_are_refused(pump: Running, kind: str | None) -> None:
    """A body of another content type, or of none, is 415 on every route that takes one."""
    before = (await pump.http.get(PUMP)).json()
    for method, path, body in CHANGES:
        if method == "DELETE":
            continue
        headers = {} if kind is None else {"content-type": kind}
        content = orjson.dumps({} if body is None else body)
        answer = await pump.http.request(method, path, content=content, headers=headers)
        assert answer.status_code == 415, (path, answer.text)
        assert answer.json()["supported"]
    assert (await pump.http.get(PUMP)).json() == before


async def test_an_empty_body_is_refused_where_it_decides_something(pump: Running) -> None:
    """An empty body is refused on every route where it decides something; `retrain` needs none."""
    config = {"keep_learned_seconds": 604800, "retrain": {"paused": True}}
    assert (await pump.http.put(PUMP, json=config)).status_code == 200
    before = (await pump.http.get(PUMP)).json()
    typed = {"content-type": "application/json"}
    for method, path, _ in CHANGES:
        if method == "DELETE" or path.endswith("/versions"):
            continue
        for content in (b"", b"  \n"):
            answer = await pump.http.request(method, path, content=content, headers=typed)
            assert answer.status_code == 422, (path, answer.text)
        if not path.endswith("/retrain"):
            assert (await pump.http.request(method, path)).status_code == 415
    assert (await pump.http.get(PUMP)).json() == before
    assert (await pump.http.post(f"{PUMP}/retrain")).status_code == 409, "nothing is buffered"


PAGE = """<!doctype html><title>a page</title><body><script>
const base = %s, requests = %s;
const tried = [];
function attempt(promise) { tried.push(promise.then(() => 1, () => 0)); }
for (const [method, path, body] of requests)
  for (const mode of ["cors", "no-cors"])
    for (const kind of ["application/json", "text/plain", "multipart/form-data", null]) {
      const headers = kind === null ? {} : {"content-type": kind};
      const content = body === null ? undefined : new Blob([JSON.stringify(body)]);
      attempt((async () => fetch(base + path,
        {method, mode, headers, body: content, credentials: "include"}))());
    }
for (const [method, path, body] of requests) {
  const image = new Image();
  attempt(new Promise(done => { image.onload = image.onerror = done; image.src = base + path; }));
  if (method !== "POST") continue;
  const frame = document.createElement("iframe"), form = document.createElement("form");
  frame.name = "f" + path; document.body.append(frame, form);
  const field = document.createElement("input");
  const text = JSON.stringify(body ?? {});
  // {"a": 1, "=": ""} is how a form of type text/plain can make up JSON.
  field.name = text.slice(0, -1) + (text === "{}" ? '"' : ', "'); field.value = '": ""}';
  form.append(field);
  Object.assign(form, {method, action: base + path, target: frame.name, enctype: "text/plain"});
  attempt(new Promise(done => { frame.onload = done; form.submit(); }));
}
Promise.all(tried).then(() => fetch("/done", {method: "POST", body: String(tried.length)}));
</script>"""


@asynccontextmanager
async def page(text: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Serve `text` on another port of this machine; the event is set when its script is done."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]
        except asyncio.IncompleteReadError:  # the browser opened it and did not use it
            writer.close()
            return
        body = b"" if line.startswith(b"POST") else text.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()
        if b" /done " in line:
            done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", done
    finally:
        server.close()
        await server.wait_closed()


async def test_a_foreign_page_in_a_real_browser_changes_nothing(
    pump: Running, versions: Versions, tmp_path: Path
) -> None:
    """A page of another port tries every mutating route in Chromium, and none has an effect."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on this machine")
    await pump.serve(versions[1])
    before = (await pump.http.get(PUMP)).json()
    base = f"http://localhost:{pump.port}"
    text = PAGE % (orjson.dumps(base).decode(), orjson.dumps(await every_change(pump)).decode())
    async with page(text) as (url, done):
        process = await asyncio.create_subprocess_exec(
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-dev-shm-usage",
            "--remote-debugging-port=0", f"--user-data-dir={tmp_path}", url,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                await done.wait()
        finally:
            process.kill()
            await process.wait()
    assert (await pump.http.get(PUMP)).json() == before
    assert (await pump.http.get("/v1/keys")).json() == {"keys": []}
    assert (await pump.http.get(f"{PUMP}/audit")).json()["audit"][-1]["to"] == 2
