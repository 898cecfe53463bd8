"""Malformed input never gives a 5xx or an echo, and every answer is a problem document."""

import asyncio
import itertools

import pytest

from tests.contract.running import Running

pytestmark = pytest.mark.anyio

MARK = "4171"
PUMP = "/v1/detectors/pump"
ROUTES = [
    ("PUT", PUMP), ("PUT", "/v1/detectors/other"), ("POST", f"{PUMP}/score"),
    ("POST", f"{PUMP}/score?version=1&explain=3"), ("POST", f"{PUMP}/normal"),
    ("POST", f"{PUMP}/retrain"), ("POST", f"{PUMP}/feedback"), ("PUT", f"{PUMP}/champion"),
    ("POST", f"{PUMP}/versions"), ("POST", f"{PUMP}/quarantine/v1"), ("DELETE", f"{PUMP}/x"),
    ("GET", f"{PUMP}/events?limit=%00"), ("GET", f"{PUMP}/versions/%ff"), ("GET", "/%ff/%00"),
    ("GET", "/v1/detectors/%F0%9F%98%80"), ("DELETE", "/v1/detectors/%ff"), ("PATCH", PUMP),
    ("PUT", "/v1/templates/other"), ("POST", f"{PUMP}/revoke"), ("POST", f"{PUMP}/mute"),
    ("POST", "/v1/keys"),
]  # fmt: skip
BODIES = [
    b"", b"\x00", b"\xff\xfe", b"{", b"[]", b"null", b"NaN", b"1e999", b'"' + b"\\ud800" + b'"',
    b'{"vectors": [[4171.5, NaN]]}', b'{"vectors": "4171"}', b'{"4171": 4171}',
    b'{"version": 1e999}', b'{"version": 99999999999999999999999}', b'{"version": "4171"}',
    b'{"weights": {"w_prev": NaN}}', b'{"weights": {"half_life": 1e999}}', b'{"wait": NaN}',
    b'{"wait": 1e400}', b'{"labels": [{"label": "\\udfff"}]}', b'{"decision": null}',
    b'{"labels": [{"label": "normal", "vector": [1e308, 1, 1]}]}',
    b'{"seed": 1e400}', b'{"seed": 99999999999999999999999}', b'{"features": ["\\ud800"]}',
    b'{"threshold": {"value": 1e300}}', b'{"dimension": 1e400}', b"[" * 200_000,
    b'{"a":' * 100_000, b'{"vectors": ' + b"[" * 200_000, b'{"threshold": ' + b"[" * 100_000,
    b"\xef\xbb\xbf{}", b'{"vectors": [[1,2,3]], "vectors": 4171}', b" " * 100_000,
]  # fmt: skip
OTHER_TYPES = ["application/octet-stream", "application/x-npy", "\xff"]


@pytest.mark.parametrize(
    "kind",
    ["application/json", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in OTHER_TYPES)],
)
async def test_every_route_refuses_malformed_bodies(pump: Running, kind: str) -> None:
    """Every route refuses every malformed body, in every content type."""
    gate = asyncio.Semaphore(8)

    async def ask(route: tuple[str, str], body: bytes) -> None:
        method, path = route
        headers = {"content-type": kind.encode("latin-1"), "if-match": '"\\"', "accept": ",;q=x"}
        async with gate:
            answer = await pump.http.request(method, path, content=body, headers=headers)
        where = (method, path, body[:40], kind, answer.status_code, answer.text[:200])
        assert answer.status_code < 500, where
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json", where
            assert MARK not in answer.text, where

    await asyncio.gather(*(ask(*each) for each in itertools.product(ROUTES, BODIES)))


@pytest.mark.parametrize(
    "head",
    [
        b"POST %s/score HTTP/1.1\r\nhost: [::1]\r\ncontent-length: -1\r\n\r\n",
        b"POST %s/score HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST %s/score HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"POST %s/score HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"BREW %s/score HTTP/1.1\r\nhost: [::1]\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
    ],
)
async def test_malformed_http_gets_4xx_or_a_close(pump: Running, head: bytes) -> None:
    """Broken HTTP gets a 4xx or a closed connection; the process continues."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pump.port)
    writer.write(head.replace(b"%s", PUMP.encode()))
    await writer.drain()
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()
    assert line == b"" or line.split()[1].startswith(b"4")
    scored = await pump.http.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})
    assert scored.status_code == 200


async def test_configs_in_another_encoding_are_refused_by_its_name(pump: Running) -> None:
    """JSON in an encoding that Windows tools write is refused with the encoding's name."""
    for method, path in [("PUT", "/v1/detectors/other"), ("PATCH", PUMP), ("POST", "/v1/keys")]:
        for text, words in [("utf-8-sig", "byte order mark"), ("utf-16", "UTF-16")]:
            headers = {"content-type": "application/json"}
            body = '{"seed": 1}'.encode(text)
            answer = await pump.http.request(method, path, content=body, headers=headers)
            assert answer.status_code == 422
            assert words in answer.json()["detail"], path


async def test_a_field_that_is_given_twice_is_refused(pump: Running) -> None:
    """A config or a decision with a field twice is refused, because one would be lost."""
    retrain = b'{"retrain": {"paused": true}, "retrain": {}}'
    large = b'{"features": [%b], "seed": 1, "seed": 2}' % b",".join(
        b'"feature %d"' % i for i in range(30_000)
    )
    for method, path, body in [
        ("PUT", "/v1/detectors/other", retrain),
        ("PUT", "/v1/detectors/other", b'{"model": {"epochs": 1, "epochs": 2}}'),
        ("PUT", "/v1/detectors/other", large),
        ("PATCH", PUMP, retrain),
        ("PUT", "/v1/templates/other", retrain),
        ("POST", f"{PUMP}/retrain", b'{"wait": 0, "wait": 1}'),
        ("PUT", f"{PUMP}/champion", b'{"version": 1, "version": 2}'),
    ]:
        headers = {"content-type": "application/json"}
        answer = await pump.http.request(method, path, content=body, headers=headers)
        assert answer.status_code == 422, (method, path)
        assert "twice" in answer.json()["detail"], (method, path)


async def test_a_parameter_that_is_given_twice_is_refused(pump: Running) -> None:
    """A query with a parameter twice is refused on every route, because one would be lost."""
    rows = {"vectors": [[1, 2, 3]]}
    for method, path, body in [
        ("POST", f"{PUMP}/normal?vouch=false&vouch=true", rows),
        ("POST", f"{PUMP}/score?version=1&version=2", rows),
        ("GET", f"{PUMP}/audit?limit=1&limit=2", None),
        ("GET", "/v1/detectors?after=a&after=b", None),
    ]:
        answer = await pump.http.request(method, path, json=body)
        assert answer.status_code == 422, path
        assert "more than once" in answer.json()["detail"], path


async def test_bodies_without_rows_have_a_smaller_limit(pump: Running) -> None:
    """Bodies that hold no rows have a smaller limit, because the event loop reads them."""
    names = b",".join(b'"f%d"' % i for i in range(65_537))
    for method, path, body, status in [
        ("PUT", "/v1/detectors/other", b" " * 9_000_000 + b"{}", 413),
        ("PATCH", PUMP, b" " * 9_000_000 + b"{}", 413),
        ("PUT", "/v1/templates/other", b" " * 9_000_000 + b"{}", 413),
        ("POST", f"{PUMP}/feedback", b" " * 9_000_000 + b"{}", 413),
        ("POST", f"{PUMP}/retrain", b" " * 300_000 + b"{}", 413),
        ("PUT", "/v1/detectors/other", b'{"features": [%b]}' % names, 422),
    ]:
        headers = {"content-type": "application/json"}
        answer = await pump.http.request(method, path, content=body, headers=headers)
        assert answer.status_code == status, (method, path)
        assert status == 422 or answer.json()["limit"] < 9_000_000
    assert "features" in answer.json()["detail"]
