"""Files that each new connection to the store reads, so that a new password needs no restart.

`Settings` adds the name of a file to the query of the store's address: the file of the password, or
of the whole address. These parameters are removed before redis-py gets the address.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio.connection import ConnectionPool, SSLConnection
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError  # noqa: A004 - redis-py's class

from service.addresses import PASSWORD_FILE, SENTINEL_FILE, URL_FILE, user_of, without_files
from service.settings_file import content


class FileCredentials(CredentialProvider):
    """The user's name and password for a new connection, from `file`."""

    def __init__(self, file: Path, read: Callable[[str], tuple[str, str]]) -> None:
        self._file, self._read = file, read  # `read` finds user and password in the file's text

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return what the file holds. Raises ConnectionError of redis-py if it holds no password.

        After any other error redis-py would keep the connection, which is not authenticated.
        """
        try:
            user, password = self._read(content(self._file).decode().strip())
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text, or no address"
            raise ConnectionError(f"{self._file} cannot be read: {why}") from None
        if not password:
            raise ConnectionError(f"{self._file} has no password")
        return (user, password) if user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Do what `get_credentials` does. The event loop waits: the file is small."""
        return self.get_credentials()


def credentials(url: str) -> tuple[str, dict[str, Any]]:
    """Return the address without names of files, and the options that make redis-py read them."""
    plain, files = without_files(url)
    if not files.keys() & {PASSWORD_FILE, URL_FILE}:
        return plain, {}
    parts = urlsplit(plain)
    place = parts.netloc.rpartition("@")[2]
    if PASSWORD_FILE in files:
        user = user_of(plain)[0]
        provider = FileCredentials(Path(files[PASSWORD_FILE]), lambda password: (user, password))
    else:
        provider = FileCredentials(Path(files[URL_FILE]), user_of)
    return parts._replace(netloc=place).geturl(), {"credential_provider": provider}


def sentinel_credentials(url: str) -> dict[str, Any]:
    """Return the options of connections to the sentinels of the address `url`."""
    user, password = _user_of_sentinels(url)
    _, files = without_files(url)
    if SENTINEL_FILE in files:
        file = Path(files[SENTINEL_FILE])
        return {"credential_provider": FileCredentials(file, _user_of_sentinels)}
    return {"username": user or None, "password": password or None}


def _user_of_sentinels(url: str) -> tuple[str, str]:
    query = dict(parse_qsl(urlsplit(url).query))
    return query.get("sentinel_username", ""), query.get("sentinel_password", "")


class _SharedContext:
    """A TLS connection that shares its context with its pool.

    redis-py reads the system's authorities for each connection, which takes tens of milliseconds
    of the event loop. Here they are read once, and again after one of the pool's files has changed.
    """

    # The state of the pool's files when its context was made, and that context.
    made: tuple[Any, Any] = (None, None)

    def _connection_arguments(self) -> Any:
        """Return redis-py's arguments of a new connection."""
        ours: Any = self
        files = [Path(file).stat() for file in (ours.ca_certs, ours.certfile, ours.keyfile) if file]
        seen = [(file.st_mtime_ns, file.st_ino, file.st_size) for file in files]
        if ours.made[0] != seen:
            ours.ssl_context.context = None
            type(ours).made = seen, ours.ssl_context.get()
        ours.ssl_context.context = ours.made[1]
        return super()._connection_arguments()  # type: ignore[misc]


def share_context(pool: ConnectionPool) -> None:
    """Let the TLS connections of `pool` share one context."""
    connection_class = pool.connection_class
    if issubclass(connection_class, SSLConnection):
        pool.connection_class = type("SharedContext", (_SharedContext, connection_class), {})
