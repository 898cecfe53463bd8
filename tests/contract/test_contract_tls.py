"""Tests HTTPS for clients, TLS to the store, and a store user with only the needed rights."""

import asyncio
import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis as BlockingRedis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from service.settings import Settings
from service.store.connection import check_durability, connect
from service.store.erasure import Erasure
from tests.certificates import self_signed
from tests.conftest import DURABLE
from tests.contract.running import Running, running
from tests.deploy.running import free_port
from tests.service.trained import Versions
from tests.waiting import until, wait_for

pytestmark = pytest.mark.anyio

PUMP = "/v1/detectors/pump"
SCORE = {"vectors": [[0, 0, 0]]}
PASSWORD = "s3cret-of/the@store"  # with characters that a URL would interpret


async def exercise(api: Running, versions: Versions) -> None:
    """Create, learn, score, list, delete."""
    await api.make()
    await api.serve(versions[0])
    assert (await api.http.post(f"{PUMP}/score", json=SCORE)).json()["version"] == 1
    assert (await api.http.get(f"{PUMP}/versions")).status_code == 200
    assert (await api.http.get(f"{PUMP}/events")).status_code == 200
    assert (await api.http.post("/v1/keys", json={"name": "x", "scopes": ["admin"]})).is_success


async def test_https_is_served_to_clients_that_trust_the_certificate(
    store_url: str, versions: Versions, tmp_path: Path
) -> None:
    """HTTPS works with the given certificate for clients that trust it; plain HTTP does not."""
    cert, key = self_signed(tmp_path / "ours")
    other, _ = self_signed(tmp_path / "other")
    async with running(
        store_url, poll_seconds=0.1, tls_cert=cert, tls_key=key, header_seconds=0.5
    ) as api:
        await exercise(api, versions)
        port = api.port
        for verify in (ssl.create_default_context(cafile=other), True):
            async with httpx.AsyncClient(verify=verify, trust_env=False) as http:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await http.get(f"https://localhost:{port}/healthz")
        async with httpx.AsyncClient(trust_env=False) as http:
            with pytest.raises(httpx.TransportError):
                await http.get(f"http://localhost:{port}/healthz")
        await too_slow(port, cert)
        await silent(port)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=cert)
            context.minimum_version = context.maximum_version = version
            async with httpx.AsyncClient(verify=context, trust_env=False) as http:
                assert (await http.get(f"https://localhost:{port}/healthz")).status_code == 200


async def too_slow(port: int, cert: Path) -> None:
    """Send half a head; expect 408."""
    context = ssl.create_default_context(cafile=cert)
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost")
    async with asyncio.timeout(10):
        reply = await reader.read()
    assert reply.startswith(b"HTTP/1.1 408 ")
    writer.close()


async def silent(port: int) -> None:
    """Never begin the handshake; expect a close long before a minute is over."""
    reader, writer = await asyncio.open_connection("localhost", port)
    async with asyncio.timeout(40):
        assert await reader.read() == b""
    writer.close()


def dropped(peer: socket.socket) -> bool:
    """Return whether the service has closed the connection of a peer that reads nothing."""
    watched = select.poll()
    watched.register(peer, select.POLLRDHUP)
    return bool(watched.poll(0))


async def test_the_slowest_handshakes_are_dropped(store_url: str, tmp_path: Path) -> None:
    """Handshakes are bounded in number: one more ends the oldest, and clients are served."""
    cert, key = self_signed(tmp_path)
    bound, peers = 20, list[socket.socket]()
    async with running(
        store_url, tls_cert=cert, tls_key=key, max_connections=bound, header_seconds=600
    ) as api:
        try:
            address = ("127.0.0.1", api.port)
            peers.extend(socket.create_connection(address) for _ in range(3 * bound))
            await until(lambda: sum(map(dropped, peers)) == 2 * bound)
            assert not any(map(dropped, peers[2 * bound :]))
            assert (await api.http.get("/healthz")).status_code == 200
            assert sum(map(dropped, peers)) == 2 * bound + 1
        finally:
            for peer in peers:
                peer.close()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_answers_that_nobody_reads_are_bounded(
    store_url: str, tmp_path: Path, *, encrypted: bool
) -> None:
    """Peers that do not read their answers are dropped once these are too many bytes together."""
    cert, key = self_signed(tmp_path)
    files = {"tls_cert": cert, "tls_key": key} if encrypted else {}
    context = ssl.create_default_context(cafile=cert)
    peers: list[socket.socket] = []

    def ask(port: int) -> socket.socket:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", port))
        if encrypted:
            peer = context.wrap_socket(peer, server_hostname="localhost")
        peer.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return peer

    async with running(
        store_url, unsent_max_bytes=2**20, body_seconds=600, drain_seconds=1, **files
    ) as api:
        try:
            # Without a bound the system itself would keep 3 MB for each connection.
            (listener,) = api.server.servers[0].sockets
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            requests = (asyncio.to_thread(ask, api.port) for _ in range(40))  # 9 MB of answers
            peers.extend(await asyncio.gather(*requests))
            await until(lambda: len(api.server.server_state.connections) <= 20)
            assert (await api.http.get("/healthz")).status_code == 200
        finally:
            for peer in peers:
                peer.close()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Run a server that accepts only TLS, with one user who has only the needed rights."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on this machine")
    cert, key = self_signed(tmp_path / "store")
    (tmp_path / "users.acl").write_text(
        "user default off\n"
        f"user anamnesis on >{PASSWORD} ~anamnesis:* &anamnesis:* +@all -@admin -@dangerous "
        "+config|get +bgrewriteaof +info\n"
    )
    port = free_port()
    command = [
        binary, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1",
        "--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert),
        "--tls-auth-clients", "no", "--aclfile", str(tmp_path / "users.acl"),
        "--dir", str(tmp_path), "--save", "", *DURABLE,
    ]  # fmt: skip
    log = tmp_path / "store.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(lambda: process.poll() is not None or _answers(port, cert), "the store", log)
        if process.poll() is not None:
            pytest.skip(f"this redis-server does not start with TLS: {log.read_text()}")
        yield port, cert
    finally:
        process.kill()
        process.wait()


def _answers(port: int, cert: Path) -> bool:
    options = {"username": "anamnesis", "password": PASSWORD, "ssl_ca_certs": str(cert)}
    with BlockingRedis(host="localhost", port=port, ssl=True, **options) as client:
        try:
            return client.get("anamnesis:x") is None
        except (RedisError, OSError):  # not listening yet
            return False


async def test_a_store_with_tls_and_a_restricted_user_is_enough(
    secured: tuple[int, Path], versions: Versions, tmp_path: Path
) -> None:
    """The URL names the user, files hold password and authority, and all commands work."""
    port, cert = secured
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    url = f"rediss://anamnesis@localhost:{port}/0"
    files = {"redis_password_file": password, "redis_ca_file": cert}
    async with running(url, poll_seconds=0.1, **files) as api:
        await exercise(api, versions)
    async with await connect(Settings(redis_url=url, **files).store_url() or "") as redis:
        assert await check_durability(redis) == ()
        assert await Erasure(redis).rewrite()


async def test_an_untrusted_store_counts_as_away(secured: tuple[int, Path], tmp_path: Path) -> None:
    """With a wrong authority, no password or no TLS, the process waits and admits nobody."""
    port, cert = secured
    other, _ = self_signed(tmp_path / "other")
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    right = {"redis_password_file": password, "redis_ca_file": cert}
    for scheme, wrong in (
        ("rediss", {"redis_ca_file": other}), ("rediss", {"redis_password_file": None}),
        ("redis", {}),
    ):  # fmt: skip
        url = f"{scheme}://anamnesis@localhost:{port}/0"
        async with running(url, poll_seconds=0.1, **(right | wrong)) as api:
            assert (await api.http.get("/readyz")).status_code == 503
            assert (await api.http.get("/v1/detectors")).status_code == 503

            async def away(api: Running = api) -> bool:
                return not api.parts.watcher.health.redis_up

            await until(away)


async def test_another_authority_of_the_store_is_read_without_a_restart(
    secured: tuple[int, Path], tmp_path: Path
) -> None:
    """A process that started with an old authority and password reaches the store with new ones."""
    port, cert = secured
    authorities, password = tmp_path / "ca.pem", tmp_path / "password"
    authorities.write_bytes(self_signed(tmp_path / "other")[0].read_bytes())
    password.write_text("an old password")
    files = {"redis_password_file": password, "redis_ca_file": authorities}
    url = f"rediss://anamnesis@localhost:{port}/0"
    async with running(url, poll_seconds=0.1, **files) as api:

        async def up() -> bool:
            return api.parts.watcher.health.redis_up

        assert not await up()
        authorities.write_bytes(cert.read_bytes())
        password.write_text(PASSWORD)
        await until(up)


async def test_a_new_certificate_is_served_without_a_restart(
    store_url: str, tmp_path: Path
) -> None:
    """New connections get the new certificate once it and its key fit each other."""
    cert, key = self_signed(tmp_path / "ours")
    new_cert, new_key = self_signed(tmp_path / "new")
    async with running(store_url, poll_seconds=0.1, tls_cert=cert, tls_key=key) as api:

        async def serves(trusted: Path) -> bool:
            context = ssl.create_default_context(cafile=trusted)
            async with httpx.AsyncClient(verify=context, trust_env=False) as http:
                try:
                    await http.get(f"https://localhost:{api.port}/healthz")
                except httpx.ConnectError:
                    return False
                return True

        old = tmp_path / "old.pem"
        shutil.copy(cert, old)
        assert await serves(old)
        shutil.copy(new_cert, cert)
        with capture_logs() as lines:
            await until(lambda: any("not read again" in line["event"] for line in lines))
        assert await serves(old)
        shutil.copy(new_key, key)
        await until(lambda: serves(new_cert))
        assert not await serves(old)
