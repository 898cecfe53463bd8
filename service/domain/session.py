"""A browser's session: a cookie signed with an API key, so that the store holds only ended ones."""

import base64
import hmac
import secrets
from hashlib import sha256

from service.domain.api_key import Grant

COOKIE = "anamnesis_session"
CSRF_HEADER = "x-csrf-token"
SECONDS = 8 * 3600  # how long a session lasts
_LONGEST = 200  # a cookie with more characters is invalid


def issue(grant: Grant, now: float) -> str:
    """Return the cookie of a session that begins at `now` (seconds since 1970)."""
    payload = f"{grant.id}.{int(now) + SECONDS}.{secrets.token_hex(8)}"
    return f"{payload}.{_signature(grant, 'session', payload)}"


def holder(cookie: str) -> str | None:
    """Return the id of the API key that a cookie names, or None if it is not a session cookie."""
    parts = cookie.split(".")
    return parts[0] if len(cookie) <= _LONGEST and len(parts) == 4 else None


def name(cookie: str) -> str:
    """Return the random name of the session of a valid cookie: 16 hexadecimal digits."""
    return cookie.split(".")[2]


def is_valid(cookie: str, grant: Grant, now: float) -> bool:
    """Return whether the cookie is signed with this key and its time is not over."""
    payload, _, signature = cookie.rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(grant, "session", payload).encode()):
        return False
    return now < int(payload.split(".")[1])


def csrf(cookie: str, grant: Grant) -> str:
    """Return the token that a page of this session sends with every change (`X-CSRF-Token`)."""
    return _signature(grant, "csrf", cookie)


def _signature(grant: Grant, purpose: str, text: str) -> str:
    # The digest is secret, because only the store holds it. A revoked key has no digest any more.
    signature = hmac.digest(grant.digest, f"{purpose}:{text}".encode(), sha256)
    return base64.urlsafe_b64encode(signature).decode().rstrip("=")
