"""Checks the address, the API key and the certificate authorities that a user gave."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from service.client.errors import Unusable


def address_of(url: str) -> str:
    """Return the address with its scheme. Raises Unusable if the address is not valid.

    `/v1` at the end, as in the address of the API that `anamnesis up` shows, is left out.
    """
    url = url.strip()
    address = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urlsplit(address)
        if parts.path.endswith("/v1"):
            address = address.removesuffix("/v1")
        (parts.hostname or "").encode("idna")  # raises for a label that is too long, for example
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        httpx.URL(address)
    except (ValueError, httpx.InvalidURL):
        usable = None
    if not usable:
        raise Unusable("the URL is not valid: give http://host:port")
    return address


def without_secret(address: str) -> str:
    """Return the address without its user and password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def secret(key: str) -> str:
    """Return the key. Raises Unusable if a header cannot carry the key; no error shows the key."""
    key = key.strip()
    if not key or not all("!" <= char <= "~" for char in key):
        raise Unusable(
            "the API key is not valid: it is empty, or holds a space, a line end or a foreign "
            "character"
        )
    return key


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities of `ca_file`, or those of the system.

    The authorities of the system are those of OpenSSL. SSL_CERT_FILE and SSL_CERT_DIR change them.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise Unusable(f"{ca_file} holds no certificate authorities (PEM)") from None
    except OSError as error:
        raise Unusable(f"{ca_file} cannot be read: {error.strerror}") from None
