"""The reason why a store does not answer, with its address and without its password."""

import asyncio
from pathlib import Path

import pytest
import redis

from service import addresses
from service.processes.embedded_store import EmbeddedStore
from service.store.connection import unreachable


def test_a_wrong_password_is_named(tmp_path: Path) -> None:
    """The message says that the password is wrong."""
    with EmbeddedStore(tmp_path) as store:
        with redis.Redis.from_url(store.url) as client:
            client.config_set("requirepass", "right")
        why = asyncio.run(unreachable(store.url.replace("unix://", "unix://:wrong@")))
        assert why is not None
        assert "password" in why
        assert "wrong@" not in why
        why = asyncio.run(unreachable(store.url))
        assert why is not None
        assert "uthentication" in why
        assert asyncio.run(unreachable(store.url.replace("unix://", "unix://:right@"))) is None
        with redis.Redis.from_url(store.url, password="right") as client:
            client.config_set("requirepass", "")


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    """A database number beyond the server's is reported as the cause."""
    with EmbeddedStore(tmp_path) as store:
        why = asyncio.run(unreachable(f"{store.url}?db=99"))
        assert why is not None
        assert "DB index" in why


def test_a_server_in_protected_mode_is_named() -> None:
    """If a server refuses other machines, the reported cause is its own message."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-DENIED Running in protected mode because no password is set.\r\n")
        await writer.drain()
        writer.close()

    async def asked() -> str | None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            return await unreachable(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")

    why = asyncio.run(asked())
    assert why is not None
    assert "protected mode" in why


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://user:secret@127.0.0.1:1/0", "onnect"),
        ("redis://user:secret@no-such-host.invalid:6379/0", "no-such-host.invalid"),
        ("unix:///nowhere/socket", "No such file"),
    ],
)
def test_the_message_of_the_operating_system_is_kept(url: str, words: str) -> None:
    """The operating system's message is kept."""
    why = asyncio.run(unreachable(url))
    assert why is not None
    assert words in why
    assert "secret" not in why


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@store:6379/0", "redis://me:***@store:6379/0"),
        ("rediss://:secret@store/0?ssl_ca_certs=x", "rediss://:***@store/0"),
        ("redis://store:6379", "redis://store:6379"),
        ("unix:///run/s", "unix:///run/s"),
        ("unix://secret@/run/s?password=secret", "unix://secret:***@/run/s"),
        ("redis://[secret", "(an address that cannot be read)"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    """A password is hidden before the `@` and in the query."""
    assert addresses.shown(url) == shown
