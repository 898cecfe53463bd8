"""The certificate of the API, as the processes beside it see it."""

import ssl

from service.settings import BadSettings, Settings


def check_certificate(settings: Settings) -> None:
    """Raise BadSettings unless the API can speak HTTPS as it is told to."""
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise BadSettings("ANAMNESIS_TLS_KEY is set, and ANAMNESIS_TLS_CERT is not")
        return
    settings.content("tls_cert")
    if settings.tls_key is not None:
        settings.content("tls_key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password of ours OpenSSL would ask at the terminal for one.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: "")
    except (ssl.SSLError, ValueError):
        raise BadSettings(
            f"ANAMNESIS_TLS_CERT, ANAMNESIS_TLS_KEY: {settings.tls_cert} and "
            f"{settings.tls_key or 'the key in it'} are no certificate (PEM) with its key, "
            "without a password"
        ) from None


def own(settings: Settings) -> ssl.SSLContext | bool:
    """Return what trusts the service's own certificate, whatever name that is for."""
    if settings.tls_cert is None:
        return True
    context = ssl.create_default_context(cafile=settings.tls_cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its issuer may not be in the file
    return context
