"""Addresses of the store and the service: checks them, and shows them without secrets."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

SENTINELS = ("redis+sentinel", "rediss+sentinel")
_STORES = ("redis", "rediss", "unix", *SENTINELS)
_SENTINEL_PORT = 26379
PASSWORD_FILE, URL_FILE = "anamnesis_password_file", "anamnesis_url_file"
SENTINEL_FILE = "anamnesis_sentinel_file"
_FILES = (PASSWORD_FILE, URL_FILE, SENTINEL_FILE)


class WatchedStore(NamedTuple):
    """A store that Sentinel watches: the addresses of the sentinels, and the master's name."""

    sentinels: list[tuple[str, int]]
    name: str
    database: int


def with_files(url: str, files: Mapping[str, Path], authorities: Path | None) -> str:
    """Return the store's address with the names of files added to its query.

    A new connection reads its password from the file PASSWORD_FILE, or from the address in the
    file URL_FILE. A connection to a sentinel reads its password from the address in SENTINEL_FILE.
    With TLS, a client trusts the certificate authorities of the file `authorities`, if it is given.
    Raises ValueError if a client could not use the address. The message repeats nothing of it.
    """
    parts = _store_parts(url)
    if parts.scheme == "unix":
        return url
    user, _, place = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    if PASSWORD_FILE in files or URL_FILE in files:
        user = user.partition(":")[0]
    if files:
        query |= {name: str(file.absolute()) for name, file in files.items()}
    if authorities is not None and parts.scheme.startswith("rediss"):
        query["ssl_ca_certs"] = str(authorities)
    netloc = f"{user}@{place}" if user else place
    return parts._replace(netloc=netloc, query=urlencode(query)).geturl()


def user_of(url: str) -> tuple[str, str]:
    """Return the user and the password in an address, '' where there is none."""
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return unquote(user), unquote(password)


def has_password(url: str) -> bool:
    """Return whether an address holds a password."""
    try:
        return ":" in urlsplit(url).netloc.rpartition("@")[0]
    except ValueError:
        return False


def has_sentinel_password(url: str) -> bool:
    """Return whether an address holds a password for the sentinels."""
    return "sentinel_password" in dict(parse_qsl(url.partition("?")[2]))


def without_files(url: str) -> tuple[str, dict[str, str]]:
    """Return the address without the names of files that `with_files` added, and those names."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    files = {name: query.pop(name) for name in _FILES if name in query}
    return parts._replace(query=urlencode(query)).geturl() if files else url, files


def _store_parts(url: str) -> SplitResult:
    if not url.startswith(tuple(f"{scheme}://" for scheme in _STORES)):
        raise ValueError("starts with none of " + ", ".join(f"{scheme}://" for scheme in _STORES))
    if url.startswith(tuple(f"{scheme}://" for scheme in SENTINELS)):
        parts = urlsplit(url)
        watched_store(parts)
        return parts
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if the port is not a number
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    if parts.scheme == "unix":
        return parts
    database = parts.path.removeprefix("/")
    if not parts.hostname:
        raise ValueError(f"give {parts.scheme}://host:port/database")
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError("its database is not a number")
    return parts


def watched_store(parts: SplitResult) -> WatchedStore:
    """Parse the address `redis+sentinel://host:port,host:port/name/database`."""
    name, _, database = parts.path.strip("/").partition("/")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not name or not all(hosts):
        raise ValueError(f"give {parts.scheme}://host:port,host:port/master-name/database")
    if not (database or "0").isdecimal():
        raise ValueError("its database is not a number")
    return WatchedStore([_host(host) for host in hosts], name, int(database or 0))


def _host(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # an IPv6 address ends with its bracket
        return text.strip("[]"), _SENTINEL_PORT
    if not host or not port.isdecimal():
        raise ValueError("its host or port cannot be read")
    return host.strip("[]"), int(port)


def shown(url: str) -> str:
    """Return the address without its secret parts, to show to a person."""
    try:
        parts = urlsplit(url)
        user, at, place = parts.netloc.rpartition("@")
    except ValueError:
        return "(an address that cannot be read)"
    netloc = f"{user.split(':')[0]}:***@{place}" if at else place
    # `geturl` would drop the slashes of `unix:///path`.
    return f"{parts.scheme}://{netloc}{parts.path}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a port bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
