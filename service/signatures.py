"""Signatures of versions: who writes to the store alone cannot make this service serve a model.

A signature (Ed25519) is over the detector's name and the artifact's sha256, so that a version that
was signed for one detector is none for another. It stands in the version's record.
"""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any

from models import ArtifactError
from service.settings import Settings

_DOMAIN = b"anamnesis version, format 1\n"
_BLOCK_END = b"-----END PUBLIC KEY-----"


class Seal:
    """Signs with one key, if any, and takes the signatures of `trusted` ones, its own included.

    Without any key nothing is signed and nothing is asked for.
    """

    def __init__(self, signer: Any = None, trusted: tuple[Any, ...] = ()) -> None:
        self._signer = signer
        self._trusted = trusted if signer is None else (*trusted, signer.public_key())

    @classmethod
    def of(cls, settings: Settings) -> "Seal":
        """Return the seal that the settings ask for; ValueError for a file that holds no such key.

        Raises OSError for one that cannot be read.
        """
        if settings.signing_key_file is None and settings.trusted_keys_file is None:
            return cls()
        signer = None if settings.signing_key_file is None else _private(settings.signing_key_file)
        trusted = () if settings.trusted_keys_file is None else _public(settings.trusted_keys_file)
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
        """Return what the version's record says of its signature: nothing without a key."""
        if self._signer is None:
            return {}
        signature = self._signer.sign(_message(detector, artifact))
        return {"signature": base64.b64encode(signature).decode()}

    def check(self, detector: str, artifact: bytes, record: dict[str, Any] | None) -> None:
        """Raise ArtifactError unless a trusted key signed the artifact for this detector."""
        if not self.required:
            return
        from cryptography.exceptions import InvalidSignature

        try:
            signature = base64.b64decode(str((record or {}).get("signature") or ""), validate=True)
        except binascii.Error:
            signature = b""
        message = _message(detector, artifact)
        for key in self._trusted:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return
        raise ArtifactError("no trusted key signed the artifact for this detector")


def _message(detector: str, artifact: bytes) -> bytes:
    return _DOMAIN + f"{detector}\n{hashlib.sha256(artifact).hexdigest()}".encode()


def _private(file: Path) -> Any:
    serialization, ed25519 = _cryptography()
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (TypeError, ValueError):
        key = None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    raise ValueError(f"{file}: not an Ed25519 private key (PEM, without a password)")


def _public(file: Path) -> tuple[Any, ...]:
    serialization, ed25519 = _cryptography()
    blocks = file.read_bytes().split(_BLOCK_END)[:-1]
    try:
        keys = tuple(serialization.load_pem_public_key(block + _BLOCK_END) for block in blocks)
    except ValueError:
        keys = ()
    if keys and all(isinstance(key, ed25519.Ed25519PublicKey) for key in keys):
        return keys
    raise ValueError(f"{file}: not Ed25519 public keys (PEM, one after the other)")


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ValueError("signatures need: pip install 'anamnesis[signing]'") from None
    return serialization, ed25519
