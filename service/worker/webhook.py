"""Delivers messages about incidents: signed, in order for each incident, and with retries.

It runs beside everything else. A receiver that hangs or is away delays only its own messages.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NamedTuple

import httpx

from service import log
from service.domain.token_bucket import TokenBucket
from service.domain.webhook_message import Message, headers, secrets_of
from service.reread import Reread
from service.settings import BadSettings, Settings, variable
from service.store.clock import StoreClock
from service.store.connection import Connection
from service.store.leases import Lease
from service.store.lua import Fenced
from service.store.messages import Messages

_log = log.get(__name__)

SECONDS = 1.0  # between two rounds
_AT_ONCE = 50  # most messages of one detector in one round
_TIMEOUT_SECONDS = 15.0  # for one delivery, however slowly the answer comes
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # the wait after a failure; doubled each time


@dataclass(frozen=True, slots=True)
class Receiver:
    """The receiver's URL, and the secrets that sign messages.

    It gets at most `per_minute` messages a minute. A message is retried for `seconds`.
    """

    url: str
    secrets: Reread[tuple[bytes, ...]]
    per_minute: int
    seconds: float

    @classmethod
    def of(cls, settings: Settings) -> "Receiver | None":
        """Return the receiver that the settings name. Raises BadSettings for a bad secret."""
        if settings.webhook_url is None:
            return None
        secrets = Reread("the webhook's secrets", partial(_secrets, settings))
        return cls(
            settings.webhook_url, secrets, settings.webhook_per_minute, settings.webhook_seconds
        )


class _Refusal(NamedTuple):
    """When a refused message is sent again (monotonic), and the wait before that in seconds."""

    again_at: float
    pause: float


def _secrets(settings: Settings) -> tuple[bytes, ...]:
    name = "webhook_secret_file"
    if settings.webhook_secret_file is None:
        return ()
    text = settings.text(name)
    try:
        return secrets_of(text)
    except ValueError as error:
        raise BadSettings(f"{variable(name)}: {error}") from None


class Webhook:
    """Sends the waiting messages of the detectors that this process follows."""

    def __init__(
        self,
        receiver: Receiver,
        redis: Connection,
        clock: StoreClock,
        leases: Callable[[], Sequence[Lease]],
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._receiver = receiver
        self._messages = Messages(redis)
        self._clock = clock  # messages are dated with the store's time
        self._leases = leases
        # Cookies are refused: a receiver could fill the memory with them.
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._client = client or httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, cookies=cookies)
        self._pause = 0.0
        self._not_before = 0.0  # the end of the wait while the receiver is away, monotonic
        self._refused: dict[str, _Refusal] = {}  # by the message's id
        self._bucket = TokenBucket(receiver.per_minute / 60, time.monotonic(), receiver.per_minute)

    async def tick(self) -> None:
        """Deliver waiting messages until the receiver refuses. Raises StoreUnavailable."""
        oldest = time.monotonic() - self._receiver.seconds  # those before it are dropped as too old
        self._refused = {i: at for i, at in self._refused.items() if at.again_at > oldest}
        for lease in self._leases():
            try:
                await self._deliver_waiting(lease)
            except Fenced:
                continue  # another process delivers this detector's messages

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _deliver_waiting(self, lease: Lease) -> None:
        # Refused messages wait at the front. They must not hide the others.
        waiting = await self._messages.waiting(lease.name, _AT_ONCE + len(self._refused))
        oldest = await self._clock.now() - self._receiver.seconds
        late = [entry for entry in waiting if entry.message.at < oldest]
        waiting = [entry for entry in waiting if entry.message.at >= oldest]
        if late:
            await self._messages.done(lease, [entry.id for entry in late], dropped=True)
            _log.warning("messages to the webhook dropped", detector=lease.name, messages=len(late))
        behind: set[str] = set()  # incidents with an earlier message that still waits
        for entry in waiting:
            now, message = time.monotonic(), entry.message
            refusal = self._refused.get(message.id)
            if message.incident in behind or (refusal and now < refusal.again_at):
                behind.add(message.incident)
                continue
            if now < self._not_before or self._bucket.wait(now):
                return
            if await self._deliver(message):
                self._refused.pop(message.id, None)
                await self._messages.done(lease, [entry.id], dropped=False)
            else:
                behind.add(message.incident)

    async def _deliver(self, message: Message) -> bool:
        """Return whether the receiver took the message. Each failure doubles the next wait."""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                answer = await self._send(message)
        except (httpx.HTTPError, TimeoutError) as error:
            self._wait_for_receiver(type(error).__name__)
            return False
        status = answer.status_code
        if 200 <= status < 300:
            self._pause = 0.0
            return True
        if status >= 500 or status in {408, 429}:
            wait = retry_after(answer.headers, time.time())
            # The message must be tried once more before it is dropped as too old.
            left = message.at + self._receiver.seconds - await self._clock.now() - _LONGEST_PAUSE
            self._wait_for_receiver(f"status {status}", min(wait, left))
        else:  # the receiver refuses this message; it may take others
            before = self._refused.get(message.id)
            pause = 2 * before.pause if before else _LONGEST_PAUSE
            self._refused[message.id] = _Refusal(time.monotonic() + pause, pause)
            refused = "the webhook's receiver refused a message"
            _log.warning(refused, message=message.id, status=status)
        return False

    async def _send(self, message: Message) -> httpx.Response:
        """Return the answer. Its body is not read, because it may be endless."""
        self._receiver.secrets.refresh()
        sent = headers(message, self._receiver.secrets.value, int(time.time()))
        request = self._client.build_request(
            "POST", self._receiver.url, content=message.body, headers=sent
        )
        answer = await self._client.send(request, stream=True)
        await answer.aclose()
        return answer

    def _wait_for_receiver(self, why: str, least: float = 0.0) -> None:
        """Send nothing to the receiver for a while, for at least `least` seconds."""
        if not self._pause:
            _log.warning("the webhook's receiver does not answer", why=why)
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self._not_before = time.monotonic() + max(self._pause, least)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Return the seconds that the header `Retry-After` asks to wait from `now` on.

    `now` is in seconds since 1970. The header gives seconds or a date. Without it, or if it cannot
    be read, the answer is 0.

    >>> retry_after({"retry-after": "120"}, 0.0)
    120.0
    >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 20.0)
    40.0
    """
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
