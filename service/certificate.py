"""Checks the API's certificate and its key, and lets the other processes trust it."""

import ssl
from pathlib import Path

from service.settings import BadSettings, Settings


def check_certificate(settings: Settings) -> tuple[bytes, ...]:
    """Return the contents of the certificate's files; empty if the settings name no certificate.

    Raises BadSettings if the API cannot serve HTTPS with them.
    """
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise BadSettings("ANAMNESIS_TLS_KEY is set, and ANAMNESIS_TLS_CERT is not")
        return ()
    files = ["tls_cert"] if settings.tls_key is None else ["tls_cert", "tls_key"]
    contents = tuple(settings.content(name) for name in files)
    # OpenSSL would wait for the content of an empty named pipe.
    if not all(contents) or not _loads(settings.tls_cert, settings.tls_key):
        raise BadSettings(
            f"ANAMNESIS_TLS_CERT, ANAMNESIS_TLS_KEY: {settings.tls_cert} and "
            f"{settings.tls_key or 'the key in it'} are not a certificate (PEM) with its key; "
            "the key must have no password"
        )
    return contents


def _loads(certificate: Path, key: Path | None) -> bool:
    try:
        # Without a password here OpenSSL would ask for one at the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        return False
    return True


def trusts_own_certificate(settings: Settings) -> ssl.SSLContext | bool:
    """Return the argument `verify` for httpx that makes it trust the service's own certificate.

    The certificate is trusted under any host name. Without a certificate the result is True.
    Raises BadSettings if the file holds no certificate.
    """
    if settings.tls_cert is None:
        return True
    try:
        context = ssl.create_default_context(cadata=settings.text("tls_cert"))
    except ssl.SSLError:
        raise BadSettings(
            f"ANAMNESIS_TLS_CERT: {settings.tls_cert} is not a certificate (PEM)"
        ) from None
    context.check_hostname = False
    # The file may lack the issuer's certificate.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
