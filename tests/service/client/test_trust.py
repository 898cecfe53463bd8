"""The certificate authorities that the client trusts."""

import ssl
from pathlib import Path

import pytest

from service.client import Client, Unusable
from service.client.address import trust
from tests.certificates import self_signed


def test_the_authorities_of_openssl_are_trusted(tmp_path: Path, monkeypatch) -> None:
    """The client trusts OpenSSL's authorities, so SSL_CERT_FILE can name others."""
    certificate, _ = self_signed(tmp_path / "tls")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))
    (known,) = trust(None).get_ca_certs(binary_form=True)
    assert known == ssl.PEM_cert_to_DER_cert(certificate.read_text())


def test_a_file_without_authorities_is_named(tmp_path: Path) -> None:
    """A file without authorities is refused before any request."""
    file = tmp_path / "garbage"
    file.write_text("no certificate")
    with pytest.raises(Unusable, match="holds no certificate authorities"):
        Client("https://127.0.0.1:1", ca_file=file)
