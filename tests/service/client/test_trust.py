"""The certificate authorities that the client trusts."""

import asyncio
import ssl
from pathlib import Path

import pytest

from service.client import AsyncClient, Client, Unreachable, Unusable
from service.client.address import trust
from tests.certificates import self_signed


def test_the_authorities_of_openssl_are_trusted(tmp_path: Path, monkeypatch) -> None:
    """The client trusts OpenSSL's authorities, so SSL_CERT_FILE can name others."""
    certificate, _ = self_signed(tmp_path / "tls")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))
    (authority,) = trust(None).get_ca_certs(binary_form=True)
    assert authority == ssl.PEM_cert_to_DER_cert(certificate.read_text())


def test_a_file_without_authorities_is_named(tmp_path: Path) -> None:
    """A file without authorities is refused before any request."""
    file = tmp_path / "garbage"
    file.write_text("no certificate")
    with pytest.raises(Unusable, match="holds no certificate authorities"):
        Client("https://127.0.0.1:1", ca_file=file)


@pytest.mark.anyio
async def test_a_foreign_certificate_is_named_and_its_authority_trusted_on_request(
    tmp_path: Path,
) -> None:
    """The error names an untrusted certificate; with `ca_file` the client trusts its authority."""
    certificate, key = self_signed(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with AsyncClient(url) as client:
            with pytest.raises(Unreachable, match="is not trusted"):
                await client.health()
        async with AsyncClient(url, ca_file=certificate) as client:
            assert await client.health() == {}
