"""Signatures of versions. With them, write access to the store is not enough to plant a model.

A signature (Ed25519) covers the detector's name and the artifact's sha256, so it is not valid for
another detector. The version's record contains the signature.
"""

import base64
import binascii
import hashlib
from typing import Any

from models import ArtifactError
from service.settings import BadSettings, Settings, variable

_DOMAIN = b"anamnesis version, format 1\n"
_BLOCK_END = b"-----END PUBLIC KEY-----"


class Signer:
    """Signs with its key, if it has one, and accepts signatures of `trusted` keys and its own.

    Without any key nothing is signed, and no signature is required.
    """

    def __init__(self, signer: Any = None, trusted: tuple[Any, ...] = ()) -> None:
        self._signer = signer
        self._trusted = trusted if signer is None else (*trusted, signer.public_key())

    @classmethod
    def of(cls, settings: Settings) -> "Signer":
        """Return the signer of the settings. Raises BadSettings if a file has no such key."""
        signer, trusted = None, ()
        if settings.signing_key_file is not None:
            signer = _private(settings, "signing_key_file")
        if settings.trusted_keys_file is not None:
            trusted = _public(settings, "trusted_keys_file")
        return cls(signer, trusted)

    @property
    def signs(self) -> bool:
        """Whether there is a key to sign with."""
        return self._signer is not None

    @property
    def required(self) -> bool:
        """Whether a version needs a signature to be served."""
        return bool(self._trusted)

    def sign(self, detector: str, artifact: bytes) -> dict[str, str]:
        """Return the record's fields about the signature, none if there is no key."""
        if self._signer is None:
            return {}
        signature = self._signer.sign(_message(detector, artifact))
        return {"signature": base64.b64encode(signature).decode()}

    def check(self, detector: str, artifact: bytes, signature: str | None) -> None:
        """Raise ArtifactError unless a trusted key signed the artifact for this detector."""
        if not self.required:
            return
        from cryptography.exceptions import InvalidSignature

        try:
            given = base64.b64decode(signature or "", validate=True)
        except binascii.Error:
            given = b""
        message = _message(detector, artifact)
        for key in self._trusted:
            try:
                key.verify(given, message)
            except InvalidSignature:
                continue
            return
        raise ArtifactError("no trusted key signed the artifact for this detector")


def _message(detector: str, artifact: bytes) -> bytes:
    return _DOMAIN + f"{detector}\n{hashlib.sha256(artifact).hexdigest()}".encode()


def _private(settings: Settings, setting: str) -> Any:
    serialization, ed25519 = _cryptography(setting)
    pem = settings.content(setting)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError):
        key = None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    file = getattr(settings, setting)
    expected = "an Ed25519 private key (PEM, without a password)"
    raise BadSettings(f"{variable(setting)}: {file}: not {expected}")


def _public(settings: Settings, setting: str) -> tuple[Any, ...]:
    serialization, ed25519 = _cryptography(setting)
    blocks = settings.content(setting).split(_BLOCK_END)[:-1]
    try:
        keys = tuple(serialization.load_pem_public_key(block + _BLOCK_END) for block in blocks)
    except ValueError:
        keys = ()
    if keys and all(isinstance(key, ed25519.Ed25519PublicKey) for key in keys):
        return keys
    file = getattr(settings, setting)
    expected = "Ed25519 public keys (PEM, one after the other)"
    raise BadSettings(f"{variable(setting)}: {file}: not {expected}")


def _cryptography(setting: str) -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise BadSettings(
            f"{variable(setting)}: signatures need: pip install 'anamnesis[signing]'"
        ) from None
    return serialization, ed25519
