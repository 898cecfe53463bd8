"""The fast lane and the FastAPI route give the same answers."""

import asyncio

import numpy as np
import pytest

from tests.contract.running import Running, running
from tests.service.trained import Versions

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream", "accept": "application/octet-stream"}
SCORES = [
    (b'{"vectors": [[0, 1, 2], [9, 9, 9]]}', JSON),
    (np.ones((2, 3), "<f4").tobytes(), OCTETS),
    (b'{"vectors": [[0, 1]]}', JSON),
    (b'{"vectors": [[0, 1, null]]}', JSON),
    (b"no json", JSON),
    (b"", JSON),
    (b'{"vectors": [[0, 1, 2]]}', {}),
    (b'{"vectors": [[0, 1, 2]]}', JSON | {"origin": "http://evil.example"}),
    (b'{"vectors": [[0, 1, 2]]}', JSON | {"host": "evil.example"}),
    (b'{"vectors": [[0, 1, 2]]}', JSON | {"content-encoding": "gzip"}),
    (b" " * 70_000 + b'{"vectors": [[0, 1, 2]]}', JSON),
]


async def visible_parts(api: Running, versions: Versions) -> list[tuple]:
    """Return the parts of each answer that a client sees."""
    await api.make()
    await api.serve(versions[0])
    parts = []
    for content, headers in SCORES:
        answer = await api.http.post(f"{PUMP}/score", content=content, headers=headers)
        fields = {
            name: value
            for name, value in answer.headers.items()
            # The lane serves no page and writes no log line that names a detector.
            if name not in {"date", "content-security-policy", "x-request-id"}
        }
        parts.append((answer.status_code, answer.content, fields))
    return parts


async def test_answers_are_equal_with_and_without_the_fast_lane(
    store_url: str, versions: Versions
) -> None:
    """Status, body and headers of answers and errors are equal with and without the fast lane."""
    async with running(store_url, poll_seconds=0.2, fast_lane=False) as api:
        plain = await visible_parts(api, versions)
        assert (await api.http.delete(PUMP)).status_code == 204
        small = running(store_url, fast_lane=False, max_body_bytes=2**20)
    async with running(store_url, poll_seconds=0.2) as api:
        fast = await visible_parts(api, versions)
    assert plain == fast
    assert [status for status, *_ in fast[:3]] == [200, 200, 422]
    async with small as api:
        answer = await api.http.post(f"{PUMP}/score", content=bytes(2**20 + 1), headers=JSON)
        assert answer.status_code == 413


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_hosts_codings_lengths_and_paths_follow_the_standard(
    store_url: str, fast_lane: bool
) -> None:
    """Hosts, codings, lengths and paths follow the standard, with and without the fast lane."""
    body = b'{"vectors": [[0]]}'
    line, host = b"POST /v1/detectors/none/score HTTP/1.1", b"Host: localhost"
    kind = b"Content-Type: application/json"
    length = b"Content-Length: 18"
    heads = [
        ([line, host, kind, length], 404),
        ([line, host, kind, length + b"  "], 404),
        ([line, kind, length], 400),
        ([line, host, b"Host: localhost", kind, length], 400),
        ([line, host, kind, b"Transfer-Encoding: gzip, chunked"], 400),
        ([line, host, kind, b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"], 400),
        ([line.replace(b"/none/", b"%2Fnone/"), host, kind, length], 404),
        ([b"GET /v1%2fdetectors HTTP/1.1", host], 404),
        ([b"OPTIONS /healthz HTTP/1.0"], 405),
        ([line, b"Host: localhost:http", kind, length], 403),
        ([line, b"Host: [::1]a", kind, length], 403),
        ([line, b"Host: [::1]:80", kind, length], 404),
        ([line, host, kind, kind, length], 400),
        ([line, host, kind, b"Content-Encoding: gzip", b"Content-Encoding: identity", length], 400),
        ([line, host, kind, length, b"Idempotency-Key: a", b"Idempotency-Key: b"], 400),
    ]
    if fast_lane:  # uvicorn's own connections drop the host of a target in absolute form
        foreign = line.replace(b"/v1", b"http://a.example/v1")
        heads += [([foreign, host, kind, length], 403)]
        heads += [([line.replace(b"/v1", b"http://localhost/v1"), host, kind, length], 404)]
    async with running(store_url, fast_lane=fast_lane) as api:
        for head, status in heads:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            chunked = b"Transfer-Encoding" in head[-1]
            writer.write(b"\r\n".join([*head, b"", b""]))
            if head[0].startswith(b"POST"):
                writer.write(b"12\r\n" + body + b"\r\n0\r\n\r\n" if chunked else body)
            async with asyncio.timeout(20):
                status_line = await reader.readline()
                # A proxy may have found another end of such a body: nothing more is read.
                rest = await reader.read() if chunked else b""
            assert status_line.split()[1] == str(status).encode(), (head, status_line)
            assert not chunked or b"connection: close" in rest.lower()
            writer.close()
