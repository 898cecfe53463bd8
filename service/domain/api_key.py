"""API keys and what each of them allows."""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

from service.domain.detector import template_of
from service.domain.scope import Scope
from service.json_value import JsonObject
from service.settings import BadSettings, Settings, variable
from service.timestamps import rfc3339

_PREFIX = "anm_"  # scanners of repositories and logs recognise a key by it


def new_secret() -> str:
    """Return a new key of 256 random bits; nobody can guess it, so one hash protects it."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest(secret: bytes) -> bytes:
    """Return the sha256 of a key; the store keeps this and never the key.

    A slow derivation (scrypt, Argon2) makes guessing expensive where people choose the secret.
    Nobody guesses 256 random bits, so a slow derivation would gain nothing here. It would cost a
    tenth of a second at the first request of each connection, and anyone could cause that.
    """
    return hashlib.sha256(secret).digest()


def identity(digest: bytes) -> str:
    """Return the public name of the key with this digest: 64 of its bits, in hexadecimal."""
    return digest[:8].hex()


@dataclass(frozen=True, slots=True)
class Grant:
    """What an API key allows: `scopes` on `detectors`. None means all detectors and the service.

    `requests_per_second` (None: no limit) applies in each API process. `max_body_bytes` (None: the
    limit of the service) applies to each request. `created` is in milliseconds since 1970.
    """

    id: str
    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    detectors: frozenset[str] | None = None
    requests_per_second: float | None = None
    max_body_bytes: int | None = None
    created: int | None = None

    @classmethod
    def of(cls, secret: bytes, name: str, scopes: frozenset[Scope], **more: Any) -> "Grant":
        """Return what the key `secret` allows."""
        hashed = digest(secret)
        return cls(identity(hashed), name, hashed, scopes, **more)

    @property
    def who(self) -> str:
        """The name of the key in the audit trail."""
        return f"key:{self.id}"

    def covers(self, detector: str) -> bool:
        """Return whether the key covers the detector; a key for `t` covers its entities `t:*`."""
        return (
            self.detectors is None
            or detector in self.detectors
            or template_of(detector) in self.detectors
        )


def allowed(grant: Grant) -> JsonObject:
    """Return the JSON object that says what a key allows."""
    return {
        "name": grant.name,
        "scopes": sorted(grant.scopes),
        "detectors": None if grant.detectors is None else sorted(grant.detectors),
        "requests_per_second": grant.requests_per_second,
        "max_body_bytes": grant.max_body_bytes,
    }


def describe(grant: Grant) -> JsonObject:
    """Return the JSON object of a key in an answer."""
    created = rfc3339(None if grant.created is None else grant.created / 1000)
    return {"id": grant.id, **allowed(grant), "created_at": created}


# The grant of every request while the service has no keys.
ANYONE = Grant("anyone", "anyone", b"", frozenset(Scope))


_LEAST_SECRET = 32  # characters of a key in a file, because a person may have chosen it


def keys_in_files(settings: Settings) -> list[Grant]:
    """Return the keys in the files that the settings name. Raises BadSettings for a bad key."""
    grants = []
    for setting, scopes in (
        ("admin_key_file", frozenset(Scope)),
        ("metrics_key_file", frozenset({Scope.METRICS})),
    ):
        if getattr(settings, setting) is not None:
            name = setting.replace("_", " ")
            grants.append(Grant.of(_secret_in_file(settings, setting), name, scopes))
    return grants


def _secret_in_file(settings: Settings, setting: str) -> bytes:
    secret = settings.content(setting).strip()
    if len(secret) < _LEAST_SECRET or not secret.isascii() or b" " in secret:
        raise BadSettings(
            f"{variable(setting)}: {getattr(settings, setting)}: a key has at least "
            f"{_LEAST_SECRET} ASCII characters, no spaces."
        )
    return secret
