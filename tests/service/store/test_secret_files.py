"""A connection reads its password from the file that the settings name."""

from pathlib import Path

import pytest

from service.problems import StoreUnavailable
from service.settings import BadSettings, Settings
from service.store.connection import ask, cause, connect
from tests.deploy.running import free_port

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("holds", ["the password", "the address", "user and password"])
async def test_a_rotated_password_is_used_by_the_next_connection(own_store, tmp_path, holds):
    """While the passwords of store and file differ, the store is away; no restart is needed."""
    file = tmp_path / "secret"
    address, name = f"127.0.0.1:{free_port()}", "user" if holds.startswith("user") else ""
    own_store.kill()
    own_store.start("--port", address.partition(":")[2])

    def settings(password: str) -> Settings:
        if holds == "the password":
            file.write_text(password + "\n")
            return Settings(redis_url=f"redis://{address}", redis_password_file=file)
        file.write_text(f"redis://{name}:{password}@{address}")
        return Settings(redis_url_file=file)

    admin = await connect(own_store.url)

    async def require(password: str) -> None:
        """Let the store require the password, and close its other connections."""
        rule = f">{password}"
        await admin.execute_command("ACL", "SETUSER", name or "default", "on", "resetpass", rule,
                                    "~*", "&*", "+@all")  # fmt: skip
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    await require("one")
    url = settings("one").store_url()
    assert url is not None
    redis = await connect(url)
    assert await ask(redis, redis.ping())
    await require("two")
    with pytest.raises(StoreUnavailable) as refused:
        await ask(redis, redis.ping())
    assert "WRONGPASS" in cause(refused.value) or "password" in cause(refused.value)
    file.unlink()
    with pytest.raises(StoreUnavailable) as missing:
        await ask(redis, redis.ping())
    assert str(file) in cause(missing.value)
    settings("two")
    assert await ask(redis, redis.ping())
    await redis.aclose()
    await admin.aclose()


def test_an_empty_password_file_ends_the_start(tmp_path: Path):
    """Without this check the service would try the store without a password."""
    file = tmp_path / "password"
    file.write_text("\n")
    with pytest.raises(BadSettings, match=r"ANAMNESIS_REDIS_PASSWORD_FILE: .* is empty"):
        Settings(redis_url="redis://localhost", redis_password_file=file).store_url()
