"""The message to a webhook's receiver: a CloudEvents 1.0 envelope, signed as in Standard Webhooks.

The message describes an incident and links to its page. Opening the link changes nothing, so a
mail scanner that opens every link does no harm.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

import msgspec
import orjson

from service.domain.incident import Incident, sentence
from service.json_value import JsonObject
from service.timestamps import rfc3339

CONTENT_TYPE = "application/cloudevents+json"
LEAST_SECRET = 16  # bytes
_PREFIX = "whsec_"  # Standard Webhooks writes it before a secret in base64

Kind = Literal["opened", "closed"]


class Message(msgspec.Struct, frozen=True):
    """One message that waits to be delivered; `incident` is the id of its incident.

    `at` is the time when the message was made, in seconds since 1970.
    """

    id: str
    incident: str
    at: float
    body: bytes


def message(
    detector: str, uid: str, kind: Kind, incident: Incident, at: float, public_url: str | None
) -> Message:
    """Return the message that `incident` opened or closed. A second call gives the same id."""
    name = f"{uid}.{incident.id}.{kind}"
    data: JsonObject = {
        "detector": detector,
        "incident": incident.id,
        "state": incident.state,
        "source": incident.source,
        "start": rfc3339(incident.start),
        "end": rfc3339(incident.end),
        "peak": incident.peak,
        "count": incident.count,
        "features": list(incident.features),
        "version": incident.version,
        "generation": incident.generation,
        "sentence": sentence(incident),
    }
    if public_url:
        data["url"] = f"{public_url.rstrip('/')}/detectors/{detector}/incidents/{incident.id}"
    envelope = {
        "specversion": "1.0",
        "id": name,
        "source": f"/v1/detectors/{detector}",
        "type": f"anamnesis.incident.{kind}",
        "subject": incident.id,
        "time": rfc3339(at),
        "datacontenttype": "application/json",
        "data": data,
    }
    return Message(name, incident.id, at, orjson.dumps(envelope))


def secrets_of(text: str) -> tuple[bytes, ...]:
    """Return the signing secrets in the text of a file, one a line.

    Raises ValueError if there is none, or if one is too short.

    >>> secrets_of("whsec_MDEyMzQ1Njc4OWFiY2RlZg==")
    (b'0123456789abcdef',)
    """
    return tuple(_secret(line.strip()) for line in text.strip().splitlines() or [""])


def _secret(text: str) -> bytes:
    try:
        secret = (
            base64.b64decode(text.removeprefix(_PREFIX), validate=True)
            if text.startswith(_PREFIX)
            else text.encode()
        )
    except binascii.Error:
        raise ValueError(f"the secret after {_PREFIX} is not base64") from None
    if len(secret) < LEAST_SECRET:
        raise ValueError(f"the secret has {len(secret)} bytes; at least {LEAST_SECRET} are needed")
    return secret


def headers(sent: Message, secrets: Sequence[bytes], now: int) -> dict[str, str]:
    """Return the headers of a delivery at `now` (seconds since 1970), signed with each secret.

    A signature covers id, time and body, so that a receiver can refuse an old message. While a
    secret is replaced, the receiver knows either the old one or the new one.
    """
    headers = {"content-type": CONTENT_TYPE, "webhook-id": sent.id, "webhook-timestamp": str(now)}
    if secrets:
        signatures = (f"v1,{signature(sent, secret, now)}" for secret in secrets)
        headers["webhook-signature"] = " ".join(signatures)
    return headers


def signature(sent: Message, secret: bytes, now: int) -> str:
    """Return the base64 HMAC-SHA256 of `id.timestamp.body`."""
    signed = b"%b.%d.%b" % (sent.id.encode(), now, sent.body)
    return base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
