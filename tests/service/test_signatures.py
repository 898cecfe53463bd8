"""Signatures of versions: whose signatures count, and for which artifact."""

from pathlib import Path

import pytest

from models import ArtifactError
from service.settings import BadSettings, Settings
from service.signatures import Signer
from tests.certificates import self_signed, signing_pair

ARTIFACT = b"a version"


def signer(signing: Path | None = None, trusted: Path | None = None) -> Signer:
    """Return the signer with these key files."""
    return Signer.of(Settings(signing_key_file=signing, trusted_keys_file=trusted))


def test_without_keys_nothing_is_signed_or_required() -> None:
    """Without keys nothing is signed, and no signature is required."""
    plain = signer()
    assert (plain.signs, plain.required, plain.sign("pump", ARTIFACT)) == (False, False, {})
    plain.check("pump", ARTIFACT, None)


def test_a_signature_is_for_one_artifact_of_one_detector(tmp_path: Path) -> None:
    """A signature of a trusted key is valid for one artifact of one detector."""
    private, public = signing_pair(tmp_path, "ours")
    foreign, _ = signing_pair(tmp_path, "foreign")
    signed = signer(private).sign("pump", ARTIFACT)
    api = signer(trusted=public)
    assert (api.signs, api.required) == (False, True)
    api.check("pump", ARTIFACT, signed["signature"])
    signer(private).check("pump", ARTIFACT, signed["signature"])
    by_another = signer(foreign).sign("pump", ARTIFACT)
    for detector, artifact, record in (
        ("press", ARTIFACT, signed), ("pump", b"another", signed), ("pump", ARTIFACT, by_another),
        ("pump", ARTIFACT, {}), ("pump", ARTIFACT, {"signature": "x"}),
        ("pump", ARTIFACT, {"signature": "=" * 88}),
    ):  # fmt: skip
        with pytest.raises(ArtifactError, match="no trusted key"):
            api.check(detector, artifact, record.get("signature"))


def test_old_and_new_keys_are_trusted_together(tmp_path: Path) -> None:
    """A file with the old and the new key accepts signatures of both."""
    pairs = [signing_pair(tmp_path, name) for name in ("old", "new")]
    both_keys = tmp_path / "both.pub"
    both_keys.write_bytes(b"# old, new\n" + b"\n".join(public.read_bytes() for _, public in pairs))
    for private, _ in pairs:
        signed = signer(private).sign("pump", ARTIFACT)
        signer(trusted=both_keys).check("pump", ARTIFACT, signed["signature"])


def test_a_file_without_a_usable_key_is_named(tmp_path: Path) -> None:
    """A process does not start with a file without a usable key; the message names the file."""
    private, public = signing_pair(tmp_path, "ours")
    _, elliptic = self_signed(tmp_path / "tls")
    empty = tmp_path / "empty"
    empty.touch()
    for file in (public, elliptic, empty):
        with pytest.raises(ValueError, match="not an Ed25519 private key"):
            signer(file)
    for file in (private, empty):
        with pytest.raises(ValueError, match="not Ed25519 public keys"):
            signer(trusted=file)
    with pytest.raises(BadSettings, match=r"ANAMNESIS_SIGNING_KEY_FILE: .*cannot be read"):
        signer(tmp_path / "absent")
