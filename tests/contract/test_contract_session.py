"""Login, logout, and what a logged-in browser may do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from service.domain.scope import Scope
from service.domain.session import COOKIE, SECONDS
from service.store.connection import Connection
from service.store.redis_keys import ENDED_SESSIONS
from tests.contract.running import Running, running
from tests.contract.test_contract_keys import PUMP, guarded, key
from tests.service.trained import Versions
from tests.waiting import until

__all__ = ["guarded"]
pytestmark = pytest.mark.anyio


@asynccontextmanager
async def logged_in(api: Running, secret: str) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """Yield a client with a session cookie, and the CSRF token that changes need."""
    async with httpx.AsyncClient(base_url=str(api.http.base_url)) as client:
        answer = await client.post("/v1/session", json={"key": secret})
        assert answer.status_code == 201, answer.text
        yield client, answer.json()["csrf"]


async def test_a_session_has_the_rights_of_its_key(guarded: Running, versions: Versions):
    """The cookie allows what the key allows, changes need the token, logout ends the session."""
    secret = await key(guarded, {Scope.READ, Scope.ADMIN}, {"pump"})
    async with logged_in(guarded, secret) as (client, token):
        cookie = client.cookies.jar
        assert all("HttpOnly" in kept._rest and kept._rest["SameSite"] == "lax" for kept in cookie)
        assert (await client.get(PUMP)).status_code == 200
        assert (await client.get("/v1/detectors/press")).status_code == 404
        refused = await client.post(f"{PUMP}/score", json={"vectors": [[0, 0, 0]]})
        assert refused.status_code == 403
        refused = await client.put(f"{PUMP}/champion", json={"version": 1})
        assert refused.status_code == 403
        assert "X-CSRF-Token" in refused.json()["detail"]
        wrong = {"X-CSRF-Token": token[::-1]}
        refused = await client.put(f"{PUMP}/champion", json={"version": 1}, headers=wrong)
        assert refused.status_code == 403
        right = {"X-CSRF-Token": token}
        done = await client.put(f"{PUMP}/champion", json={"version": 1}, headers=right)
        assert done.status_code == 200, done.text
        assert (await client.delete("/v1/session")).status_code == 204
        assert (await client.get(PUMP)).status_code == 401


async def test_a_logout_ends_every_copy_of_the_cookie_in_every_process(
    guarded: Running, store_url: str
):
    """Another session of the same key stays, and streams of the ended one end."""
    secret = await key(guarded, {Scope.READ}, None)
    async with running(store_url, poll_seconds=0.1) as other, logged_in(guarded, secret) as (
        other_session, _,
    ), logged_in(guarded, secret) as (client, _):  # fmt: skip
        copy = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
        assert (await other.http.get(PUMP, headers=copy)).status_code == 200
        async with other.http.stream("GET", "/v1/stream", headers=copy) as stream:
            assert (await client.delete("/v1/session")).status_code == 204

            async def refused() -> bool:
                return (await other.http.get(PUMP, headers=copy)).status_code == 401

            await until(refused)
            async for _ in stream.aiter_lines():
                pass  # it ends
        refused = await guarded.http.get(PUMP, headers=copy | {"authorization": ""})
        assert refused.status_code == 401
        again = await guarded.http.delete("/v1/session", headers=copy)
        assert again.status_code == 204, "an ended session may be logged out again"
        assert (await other_session.get(PUMP)).status_code == 200


async def test_ended_sessions_are_bounded_and_expire(guarded: Running, redis: Connection):
    """The latest hundred ended sessions of each key are stored, for as long as a session lasts."""
    keys = guarded.parts.stores.api_keys
    for number in range(150):
        await keys.end_session("ada", f"{number:016x}")
    await keys.end_session("bob", "f" * 16)
    assert len(await keys.ended_sessions()) == 101
    assert f"{50:016x}" in await keys.ended_sessions()
    assert 0 < await redis.ttl(ENDED_SESSIONS) <= SECONDS


async def test_a_foreign_cookie_of_the_same_name_is_ignored(guarded: Running):
    """A cookie of another service on this host is ignored, before ours and after it."""
    secret = await key(guarded, {Scope.READ}, None)
    async with logged_in(guarded, secret) as (client, _):
        ours = f"{COOKIE}={client.cookies[COOKIE]}"
    junk = f"{COOKIE}=junk; other=1; {COOKIE}={'.'.join('abcd')}; {COOKIE}"
    async with httpx.AsyncClient(base_url=str(guarded.http.base_url)) as client:
        for cookie in (f"{junk}; {ours}", f"{ours}; {junk}"):
            assert (await client.get(PUMP, headers={"cookie": cookie})).status_code == 200
        split = [("cookie", junk), ("cookie", ours)]
        assert (await client.get(PUMP, headers=split)).status_code == 200
        assert (await client.get(PUMP, headers={"cookie": junk})).status_code == 401
        # The pages give the cookies to the API, and a cookie of another service need not be ASCII.
        theirs = "name=Zo\xeb".encode("latin-1")
        for sent in ([theirs + b"; " + ours.encode()], [theirs, ours.encode()]):
            headers = [(b"cookie", cookie) for cookie in sent]
            assert (await client.get("/", headers=headers)).status_code == 200


async def test_wrong_keys_and_bodies_open_no_session(guarded: Running):
    """An unknown key is 401, an invalid body is 422, and neither is echoed."""
    for body, status in (
        ({"key": "nobody-knows-this"}, 401), ({}, 422), ({"key": 7}, 422), ({"key": ""}, 422),
        ({"key": "with space"}, 422), ({"key": "a", "more": 1}, 422),
    ):  # fmt: skip
        answer = await guarded.http.post("/v1/session", json=body)
        assert answer.status_code == status, answer.text
        assert "nobody-knows" not in answer.text


async def test_a_revoked_key_ends_its_sessions(guarded: Running):
    """When a key is deleted, its sessions end."""
    secret = await key(guarded, {Scope.READ}, None)
    async with logged_in(guarded, secret) as (client, _):
        assert (await client.get(PUMP)).status_code == 200
        identity = next(
            key["id"]
            for key in (await guarded.http.get("/v1/keys")).json()["keys"]
            if key["scopes"] == ["read"]
        )
        await guarded.http.delete(f"/v1/keys/{identity}")
        await guarded.parts.access.refresh(guarded.parts.stores.api_keys)
        assert (await client.get(PUMP)).status_code == 401


async def test_without_keys_a_login_is_refused(api: Running):
    """Without keys a login is refused, with the reason."""
    answer = await api.http.post("/v1/session", json={"key": "any"})
    assert answer.status_code == 422
    assert "no API keys" in answer.json()["detail"]
