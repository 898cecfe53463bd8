"""Where a service is, and what a client needs to be let in: checked before anything is sent."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from service.client.errors import Unusable


def address_of(url: str) -> str:
    """Return the address with its scheme; Unusable where there can be no service at it."""
    address = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urlsplit(address)
        (parts.hostname or "").encode("idna")  # a label that is too long, for one
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        httpx.URL(address)
    except (ValueError, httpx.InvalidURL):
        usable = None
    if not usable:
        raise Unusable("the URL is no address of a service: wanted is http://host:port")
    return address


def without_secret(address: str) -> str:
    """Return the address without a user and a password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def secret(key: str) -> str:
    """Return the key; Unusable where no header can carry it. It is never repeated."""
    key = key.strip()
    if not key or not all("!" <= char <= "~" for char in key):
        raise Unusable("the API key is not one: it holds spaces, line ends or other characters")
    return key


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return what trusts the authorities of `ca_file`, or those of the system.

    The system's are OpenSSL's: SSL_CERT_FILE and SSL_CERT_DIR name others.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise Unusable(f"{ca_file} holds no certificate authorities (PEM)") from None
    except OSError as error:
        raise Unusable(f"{ca_file} cannot be read: {error.strerror}") from None
