"""The webhook's messages are sent in order, repeated, and dropped after their time."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from service.domain.incident import Incident
from service.domain.incident_fold import Fold
from service.domain.webhook_message import Message, message, signature
from service.reread import Reread
from service.settings import Settings
from service.store.clock import StoreClock
from service.store.incidents import FollowedState, Incidents, StepChanges
from service.store.leases import Lease
from service.store.messages import Messages
from service.worker import webhook
from service.worker.webhook import Receiver, Webhook
from tests.service.stored import Stored

pytestmark = pytest.mark.anyio
SECRET = b"0123456789abcdef"


def secrets(*given: bytes) -> Reread[tuple[bytes, ...]]:
    """Return secrets as a worker reads them."""
    return Reread("secrets", lambda: given)


class FakeReceiver:
    """A webhook's receiver in memory: it keeps what it accepts, and answers as a test says."""

    def __init__(self, stored: Stored, lease: Lease) -> None:
        self.stored, self.lease = stored, lease
        self.delivered: list[tuple[str, str]] = []
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[str], int] = lambda _: 204
        self.headers: dict[str, str] = {}

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        name = request.headers["webhook-id"]
        status = self.answer(name)
        if status == 0:
            raise httpx.ConnectError("nobody there", request=request)
        if status < 300:
            _, incident, kind = name.split(".")
            self.delivered.append((incident, kind))
        return httpx.Response(status, headers=self.headers)

    def sender(self, **more: Any) -> Webhook:
        """Return a sender of this receiver's messages."""
        given = {
            "url": "http://pager/",
            "secrets": secrets(SECRET),
            "per_minute": 600,
            "seconds": 60.0,
        }
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))
        receiver = Receiver(**(given | more))
        redis = self.stored.redis
        return Webhook(receiver, redis, StoreClock(redis), lambda: [self.lease], client)

    async def store_messages(self, *named: tuple[str, str], age: float = 0.0) -> None:
        """Store messages as the worker does."""
        waiting: list[Message] = []
        for incident, kind in named:
            stored = Incident(incident, "", 1.0, 2.0, 2.0, 1e-4, 3, 1, 1)
            at = time.time() - age
            waiting.append(message("pump", self.lease.uid, kind, stored, at, None))  # type: ignore[arg-type]
        changes = StepChanges(messages=waiting)
        await Incidents(self.stored.redis).save(self.lease, FollowedState("0-0", Fold()), changes)

    async def messages_waiting(self) -> int:
        """Return how many messages wait."""
        return len(await Messages(self.stored.redis).waiting("pump", 100))


@pytest.fixture
async def post(stored: Stored) -> FakeReceiver:
    """Return a receiver of messages about `pump`, with the lease under which they are sent."""
    lease = await stored.leases.acquire("pump", 30.0, "monitor")
    assert lease is not None
    return FakeReceiver(stored, lease)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let the sender read `now` as its monotonic clock, in seconds."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, time=time.time)
    monkeypatch.setattr(webhook, "time", clock)
    return clock


async def test_messages_are_delivered_once_and_signed(post: FakeReceiver) -> None:
    """Waiting messages are sent in order with a signature, and then deleted."""
    await post.store_messages(("i1", "opened"), ("i2", "opened"), ("i1", "closed"))
    sender = post.sender()
    await sender.tick()
    await sender.tick()
    assert post.delivered == [("i1", "opened"), ("i2", "opened"), ("i1", "closed")]
    assert await post.messages_waiting() == 0
    sent = post.requests[0]
    assert sent.headers["content-type"] == "application/cloudevents+json"
    copy = Message(sent.headers["webhook-id"], "", 0.0, sent.content)
    expected = signature(copy, SECRET, int(sent.headers["webhook-timestamp"]))
    assert sent.headers["webhook-signature"] == f"v1,{expected}"
    assert (await post.stored.get()).messages == (3, 0)


async def test_without_a_receiver_messages_wait_in_order(
    post: FakeReceiver, clock: SimpleNamespace
) -> None:
    """Without an answer all messages wait in order, and the pauses grow."""
    await post.store_messages(("i1", "opened"), ("i1", "closed"))
    post.answer = lambda _: 0
    sender, times = post.sender(), []
    for second in range(10):
        clock.now, before = float(second), len(post.requests)
        await sender.tick()
        times += [second] * (len(post.requests) > before)
    assert times == [0, 1, 3, 7]
    assert await post.messages_waiting() == 2
    post.answer = lambda _: 200
    clock.now = 60.0
    while await post.messages_waiting():
        await sender.tick()
    assert post.delivered == [("i1", "opened"), ("i1", "closed")]


@pytest.mark.parametrize(
    ("asked", "status", "tried"),
    [
        ("200", 429, [0, 200, 240]),
        ("200", 503, [0, 200, 240]),
        ("0", 429, [0, 1, 3, 7, 15, 31, 63, 123, 183]),
        ("soon", 503, [0, 1, 3, 7, 15, 31, 63, 123, 183]),
        ("", 429, [0, 1, 3, 7, 15, 31, 63, 123, 183]),
        ("9" * 400, 429, [0, 240]),  # an hour of silence must not lose the message
    ],
)
async def test_a_busy_receiver_says_when_to_come_back(
    post: FakeReceiver,
    clock: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    status: int,
    tried: list[int],
) -> None:
    """`Retry-After` delays the next try, up to a minute before the message is dropped."""
    await post.store_messages(("i1", "opened"))
    post.answer, post.headers = lambda _: status, {"retry-after": asked}
    sender, times = post.sender(seconds=300.0), []
    start = time.time()

    async def store_now(_: StoreClock) -> float:
        return start + clock.now

    monkeypatch.setattr(StoreClock, "now", store_now)
    for second in range(242):
        clock.now, before = float(second), len(post.requests)
        await sender.tick()
        times += [second] * (len(post.requests) > before)
    assert times == tried


def test_retry_after_may_be_a_date() -> None:
    """A date gives the seconds until then, and 0 if it has passed or is not a valid date."""
    date = {"retry-after": "Mon, 30 Nov 2026 01:00:00 GMT"}
    then = 1_796_000_400.0
    assert webhook.retry_after(date, then - 90.0) == 90.0
    assert webhook.retry_after(date, then + 90.0) == 0.0
    assert webhook.retry_after({"retry-after": "Mon, 99 Foo 2026"}, then) == 0.0
    assert webhook.retry_after({}, then) == 0.0


async def test_a_refused_message_delays_only_its_incident(post: FakeReceiver) -> None:
    """A refused message delays only later messages of its own incident."""
    await post.store_messages(
        ("i1", "opened"), ("i2", "opened"), ("i1", "closed"), ("i2", "closed")
    )
    post.answer = lambda name: 400 if ".i1." in name else 200
    await post.sender().tick()
    assert post.delivered == [("i2", "opened"), ("i2", "closed")]
    assert await post.messages_waiting() == 2


async def test_a_refused_message_takes_no_turn_of_others(
    post: FakeReceiver, clock: SimpleNamespace
) -> None:
    """A message that waits after a refusal does not use up the bound on messages a minute."""
    await post.store_messages(("i1", "opened"))
    post.answer = lambda name: 400 if ".i1." in name else 200
    sender = post.sender(per_minute=2)
    for second in range(40):  # after 30 of them one more message may be sent
        clock.now = float(second)
        await sender.tick()
    await post.store_messages(("i2", "opened"))
    await sender.tick()
    assert post.delivered == [("i2", "opened")]


async def test_many_refused_messages_hide_no_other(
    post: FakeReceiver, clock: SimpleNamespace
) -> None:
    """However many messages a receiver refuses, later ones are sent. Pauses before retries grow."""
    await post.store_messages(*((f"i{i}", "opened") for i in range(150)), ("good", "opened"))
    tried = []

    def answer(name: str) -> int:
        tried.append(name)
        return 200 if ".good." in name else 400

    post.answer = answer
    sender = post.sender(per_minute=1000)
    for second in range(0, 60, 10):
        clock.now = float(second)
        await sender.tick()
    assert post.delivered == [("good", "opened")]
    for second in range(60, 500, 10):
        clock.now = float(second)
        await sender.tick()
    assert len(tried) == 1 + 150 * 4  # at once, and about 1, 3 and 7 minutes later


async def test_old_messages_are_dropped_and_counted(post: FakeReceiver) -> None:
    """A message that could not be delivered in time is dropped; later ones are sent."""
    await post.store_messages(("i1", "opened"), age=61.0)
    await post.store_messages(("i2", "opened"))
    await post.sender().tick()
    assert post.delivered == [("i2", "opened")]
    assert await post.messages_waiting() == 0
    assert (await post.stored.get()).messages == (1, 1)


async def test_an_old_message_behind_a_newer_one_is_dropped(post: FakeReceiver) -> None:
    """Messages that were dated with a wrong clock may be in another order than their times."""
    await post.store_messages(("i1", "opened"), age=-3600.0)
    await post.store_messages(("i2", "opened"), age=61.0)
    await post.sender().tick()
    assert post.delivered == [("i1", "opened")]
    assert await post.messages_waiting() == 0
    assert (await post.stored.get()).messages == (1, 1)


async def test_messages_a_minute_are_bounded(post: FakeReceiver) -> None:
    """The number of messages a minute is bounded; the others wait."""
    await post.store_messages(*((f"i{i}", "opened") for i in range(9)))
    sender = post.sender(per_minute=5)
    await sender.tick()
    await sender.tick()
    assert len(post.delivered) == 5
    assert await post.messages_waiting() == 4


async def test_a_worker_without_its_lease_deletes_no_message(post: FakeReceiver) -> None:
    """A worker without its lease deletes no message, so that another one sends them."""
    await post.store_messages(("i1", "opened"))
    assert await post.stored.leases.release(post.lease)
    await post.sender().tick()
    assert await post.messages_waiting() == 1
    lease = await post.stored.leases.acquire("pump", 30.0, "monitor")
    assert lease is not None
    post.lease = lease
    await post.sender().tick()
    assert await post.messages_waiting() == 0


def genuine(secret: str, name: str, timestamp: str, signatures: str, body: bytes) -> bool:
    """Verify a message as the specification of Standard Webhooks asks of a receiver."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.new(key, f"{name}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    given = [signature.partition(",") for signature in signatures.split(" ")]
    fresh = abs(time.time() - int(timestamp)) < 300
    known = [base64.b64decode(text) for version, _, text in given if version == "v1"]
    return fresh and any(hmac.compare_digest(expected, sent) for sent in known)


@asynccontextmanager
async def receiver(
    answer: Callable[[asyncio.StreamWriter], Any],
) -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Answer every request on a socket with the bytes that `answer` writes; yield URL, requests."""
    requests: list[tuple[dict[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
        fields = (line.split(": ", 1) for line in head if line)
        sent = {name.lower(): value for name, value in fields}
        requests.append((sent, await reader.readexactly(int(sent["content-length"]))))
        try:
            await answer(writer)
        except ConnectionError:
            pass  # the sender closed the connection without reading everything
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", requests
    finally:
        server.close()


def sender_to(post: FakeReceiver, url: str, *given: bytes) -> Webhook:
    """Return a sender with its own client."""
    receiver = Receiver(url, secrets(*given), 600, 60.0)
    redis = post.stored.redis
    return Webhook(receiver, redis, StoreClock(redis), lambda: [post.lease])


async def test_a_replaced_secret_signs_the_next_message(post: FakeReceiver, tmp_path: Path) -> None:
    """A worker reads its secrets again; while they cannot be used, the old ones sign."""
    file = tmp_path / "secrets"
    file.write_bytes(SECRET)
    settings = Settings(webhook_url="http://pager/", webhook_secret_file=file)
    receiver = Receiver.of(settings)
    assert receiver is not None
    sender = post.sender(secrets=receiver.secrets)
    for secret, signed_by in ((SECRET, SECRET), (b"short", SECRET), (b"n" * 24, b"n" * 24)):
        file.write_bytes(secret)
        await post.store_messages((f"i{len(post.requests)}", "opened"))
        await sender.tick()
        sent = post.requests[-1]
        copy = Message(sent.headers["webhook-id"], "", 0.0, sent.content)
        at = int(sent.headers["webhook-timestamp"])
        assert sent.headers["webhook-signature"] == f"v1,{signature(copy, signed_by, at)}"


async def test_a_receiver_verifies_a_message_by_the_specification(post: FakeReceiver) -> None:
    """While the secret is replaced, receivers with the old and with the new one accept."""
    old, new = (f"whsec_{base64.b64encode(text).decode()}" for text in (b"o" * 24, b"n" * 24))

    async def accept(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    await post.store_messages(("i1", "opened"))
    async with receiver(accept) as (url, requests):
        sender = sender_to(post, url, b"n" * 24, b"o" * 24)
        await sender.tick()
        await sender.close()
    ((sent, body),) = requests
    signed = [sent[f"webhook-{part}"] for part in ("id", "timestamp", "signature")]
    assert genuine(old, *signed, body)
    assert genuine(new, *signed, body)
    assert not genuine(new, *signed, body + b" ")
    assert not genuine("whsec_" + base64.b64encode(b"x" * 24).decode(), *signed, body)
    assert await post.messages_waiting() == 0


async def drip(writer: asyncio.StreamWriter) -> None:
    """Never end the head of the answer, and never pause for long."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: a\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


def says(text: bytes) -> Callable[[asyncio.StreamWriter], Any]:
    """Return a receiver that always writes `text`."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip,
        says(b""),
        says(b"\x00\xff no HTTP at all\r\n\r\n"),
        says(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9\r\n\r\nsee below"),
        says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
    ],
    ids=["drip", "nothing", "garbage", "500", "redirect"],
)
async def test_a_message_that_is_not_accepted_waits(
    post: FakeReceiver,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[asyncio.StreamWriter], Any],
) -> None:
    """Whatever a receiver does, a try ends, is not repeated at once, and loses no message."""
    monkeypatch.setattr(webhook, "_TIMEOUT_SECONDS", 0.5)
    await post.store_messages(("i1", "opened"))
    async with receiver(answer) as (url, requests):
        sender = sender_to(post, url, SECRET)
        async with asyncio.timeout(60):
            await sender.tick()
        await sender.tick()
        await sender.close()
    assert len(requests) == 1
    assert await post.messages_waiting() == 1


async def test_the_body_of_an_answer_is_not_read(post: FakeReceiver) -> None:
    """A receiver that accepts and then writes for ever does not fill the worker's memory."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 2**16)
            await writer.drain()

    await post.store_messages(("i1", "opened"))
    async with receiver(endless) as (url, _), asyncio.timeout(60):
        sender = sender_to(post, url, SECRET)
        await sender.tick()
        await sender.close()
    assert await post.messages_waiting() == 0


async def test_cookies_of_a_receiver_are_not_kept(post: FakeReceiver) -> None:
    """A receiver that sets new cookies in each answer fills no memory and gets none back."""
    answer = b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=1\r\nConnection: close\r\n\r\n"
    await post.store_messages(("i1", "opened"), ("i2", "opened"))
    async with receiver(says(answer)) as (url, requests), asyncio.timeout(60):
        sender = sender_to(post, url, SECRET)
        await sender.tick()
        await sender.close()
    assert len(requests) == 2
    assert all("cookie" not in sent for sent, _ in requests)
