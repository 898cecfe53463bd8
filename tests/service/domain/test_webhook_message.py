"""The messages that the webhook's receiver gets."""

import base64
import hashlib
import hmac

import orjson
import pytest

from service.domain.incident import Incident
from service.domain.webhook_message import headers, message, secrets_of

INCIDENT = Incident("i3-1", "pump", 10.0, 20.0, 3.0, 1e-6, 4, 2, 5)


def test_a_message_is_a_cloud_event() -> None:
    """A message is a CloudEvents 1.0 event with the sentence and a link to the page."""
    sent = message("pump-7", "u1", "opened", INCIDENT, 30.0, "https://anamnesis.example/")
    body = orjson.loads(sent.body)
    assert (body["specversion"], body["type"]) == ("1.0", "anamnesis.incident.opened")
    assert (body["source"], body["subject"]) == ("/v1/detectors/pump-7", "i3-1")
    assert (body["id"], body["time"]) == (sent.id, "1970-01-01T00:00:30.000Z")
    data = body["data"]
    assert data["sentence"].startswith("as rare as 1 in 1 million normals")
    assert data["url"] == "https://anamnesis.example/detectors/pump-7/incidents/i3-1"
    assert data["state"] == "open"
    assert "url" not in orjson.loads(message("p", "u", "closed", INCIDENT, 1.0, None).body)["data"]


def test_a_repetition_has_the_same_id() -> None:
    """A repeated message has the same id; opening and closing have different ones."""
    first = message("p", "u1", "opened", INCIDENT, 30.0, None)
    assert message("p", "u1", "opened", INCIDENT, 99.0, None).id == first.id
    assert message("p", "u1", "closed", INCIDENT, 30.0, None).id != first.id
    assert message("p", "u2", "opened", INCIDENT, 30.0, None).id != first.id


def test_a_message_is_signed_as_in_standard_webhooks() -> None:
    """Standard Webhooks: HMAC-SHA256 over id, time and body, in base64, as version 1."""
    secret = b"0123456789abcdef"
    sent = message("p", "u", "opened", INCIDENT, 30.0, None)
    sent_headers = headers(sent, (secret,), 1_700_000_000)
    assert sent_headers["webhook-id"] == sent.id
    assert sent_headers["webhook-timestamp"] == "1700000000"
    signed = f"{sent.id}.1700000000.".encode() + sent.body
    signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert sent_headers["webhook-signature"] == f"v1,{signature}"
    assert "webhook-signature" not in headers(sent, (), 1)


def test_the_example_of_the_specification_gives_its_signature() -> None:
    """The specification's example gives its signature."""
    # https://github.com/standard-webhooks/standard-webhooks, the reference libraries' test vector.
    secrets = secrets_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    sent = message("p", "u", "opened", INCIDENT, 30.0, None)
    sent = type(sent)("msg_p5jXN8AQM9LWM0D4loKWxJek", "i", 0.0, b'{"test": 2432232314}')
    signed = headers(sent, secrets, 1_614_265_330)
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_secret_is_replaced_both_sign() -> None:
    """A file with the new and the old secret signs with both; a receiver needs only one of them."""
    new, old = secrets = secrets_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n0123456789abcdef\n")
    sent = message("p", "u", "opened", INCIDENT, 30.0, None)
    signatures = headers(sent, secrets, 1)["webhook-signature"].split(" ")
    assert signatures == [headers(sent, (secret,), 1)["webhook-signature"] for secret in (new, old)]


@pytest.mark.parametrize("text", ["short", "whsec_AAAA", "whsec_!!!", "", "0" * 16 + "\nshort"])
def test_a_weak_secret_is_refused(text: str) -> None:
    """A secret below sixteen bytes, or not in base64, ends the start."""
    with pytest.raises(ValueError, match="secret"):
        secrets_of(text)
